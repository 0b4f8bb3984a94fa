"""What became known of payments, and the vectors that it belongs to."""
