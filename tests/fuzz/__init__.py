"""Millions of mutated messages through the decoder of `pix-transactions`, held against the strict one."""
