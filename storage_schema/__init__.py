"""The format that pipelines and training share: values, documents, layouts and index arithmetic. It does no I/O."""
