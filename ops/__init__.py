"""What runs around the stream: broker, traffic, replay, benchmarks."""
