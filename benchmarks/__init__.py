"""How fast the parts are, each beside the limit that physics or another program sets. Nothing here is asserted."""
