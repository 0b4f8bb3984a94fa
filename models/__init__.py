"""What scores a payment: rules now, models through the same seam."""
