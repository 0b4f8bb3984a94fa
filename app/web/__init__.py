"""The worker's web view: health, metrics, state and decisions."""
