"""How good scores are, and how sure that is."""
