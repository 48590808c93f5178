"""Pictures of samples: as stored, as views of a method, and reconstructed; for the page of a run."""
