"""Trackers outside of the run's folder: W&B and MLflow."""
