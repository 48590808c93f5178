"""Where inputs come from: listings, labels, and the words in their paths."""
