"""Forests as arrays: scored, explained, whichever library has grown them."""
