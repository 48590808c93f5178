"""Samples to object bytes and catalog rows. Equal samples give equal bytes; these modules write nothing."""
