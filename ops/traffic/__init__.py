"""Seeded Pix traffic: a population, its honest payments, frauds as stories, and the MED feedback that follows them."""
