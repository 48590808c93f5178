"""What pipelines and training share to reach the world: buckets, a Ray session, the terminal, and configuration as text."""
