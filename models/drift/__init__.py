"""Whether the stream still looks like what the model has learned from."""
