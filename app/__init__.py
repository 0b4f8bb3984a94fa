"""pixguard's program: domain, transport, settings, topics, workers, command line."""
