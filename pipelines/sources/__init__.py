"""Inputs: listings, labels, and what the words in their paths mean."""
