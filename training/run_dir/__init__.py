"""The directory of a run: checkpoints, metrics, events, status."""
