"""Shows what a dataset holds, and what was refused: in the terminal, and as one HTML page."""
