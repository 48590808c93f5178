"""Where both houses touch the world: buckets, a Ray session, the terminal, and configuration as text."""
