"""Shows a run, from its folder alone: in the terminal, and as one HTML page that is also the report of an evaluation."""
