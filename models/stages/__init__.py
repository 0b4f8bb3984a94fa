"""The two stages as pure functions: batches and state in, messages out."""
