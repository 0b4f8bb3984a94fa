"""What a decision says: its message, its reasons, their sentences."""
