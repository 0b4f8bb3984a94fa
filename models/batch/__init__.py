"""The batch model: trained on a recorded past, registered, promoted."""
