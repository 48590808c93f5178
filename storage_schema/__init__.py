"""The contract that both houses stand on: values, documents, layouts and index arithmetic. It reads and writes nothing."""
