"""Stages between reader and sink: pure functions of a sample, each with a configuration."""
