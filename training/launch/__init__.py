"""Start a run: validate it, launch Ray Train, watch its workers."""
