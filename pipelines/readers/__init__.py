"""Bytes to samples. The only package that sees (x, y, z): what leaves it is (C, H, W) or (C, D, H, W).

A reader for one more format is a module with a ``Reader``, and an entry in ``registry.READERS``; one of another package is in a
module that a recipe names (see "To add" in the README of pipelines).
"""

from __future__ import annotations

#: Version of decoding: a new number whenever values or positions change for a file that could be read before.
DECODING_VERSION = 2
