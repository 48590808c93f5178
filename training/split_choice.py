"""Which samples ``evaluate`` probes, as its option names them. Needs no torch."""

from __future__ import annotations

from typing import Final, Literal

from crossdim.storage_schema.vocabulary import Split

#: ``auto``: held-out samples of datasets whose labels the encoder was trained on, and all of others.
AUTO: Final = "auto"
ALL: Final = "all"
SplitChoice = Split | Literal["auto", "all"]
SPLIT_CHOICES: tuple[str, ...] = (AUTO, ALL, *Split)
