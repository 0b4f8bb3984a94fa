"""Faults on purpose, seeded: the whole pipeline in one process, and what must hold whatever happens to it."""
