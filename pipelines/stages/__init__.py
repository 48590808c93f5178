"""What is done to a sample between decoder and sink: pure functions, each with a configuration that says what it does."""
