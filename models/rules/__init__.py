"""Rule packs, lists and costs: what a bank decides by, as it writes it."""
