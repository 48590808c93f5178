"""A package outside of the tree, as a laboratory would write it."""
