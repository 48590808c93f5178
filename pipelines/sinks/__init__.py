"""Samples to object bytes and catalog rows. Equal samples give equal bytes; nothing is written here."""
