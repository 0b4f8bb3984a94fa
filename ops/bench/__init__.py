"""`pixguard bench`: the whole path and its parts, measured on this machine."""
