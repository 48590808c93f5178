"""How samples are divided into training and test parts: by a hash, so that the part depends on nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from crossdim.storage_schema.errors import UsageError, describe_unknown_name
from crossdim.storage_schema.patient import patient_or_content
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Split

#: Digits of the hash that draws the split.
_HASH_DIGITS = 8
SplitBy = Literal["patient", "file"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """The share of patients, or of source files, that is held out.

    Attributes:
        test_fraction: from 0 to below 1.
        by: ``patient`` keeps the samples of one patient together; ``file`` draws for each input by its content.

    Raises:
        UsageError: for another fraction or unit.
    """

    test_fraction: float = 0.0
    by: SplitBy = "patient"

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction < 1:
            raise UsageError(f"--test-fraction is a share of patients, 0 to below 1; found {self.test_fraction}")
        if self.by not in get_args(SplitBy):
            raise UsageError(describe_unknown_name("unit of --split-by", self.by, get_args(SplitBy)))

    def part_of(self, sample: Sample) -> Split:
        """The part that a source states, else the drawn one; a source without a known patient counts as a patient of its own."""
        return sample.split or self.draw(
            patient_or_content(sample.patient if self.by == "patient" else None, sample.origin.sha256)
        )

    def draw(self, unit: str) -> Split:
        """The part of one patient or file: the same in every dataset. A larger fraction only adds to the test part."""
        draw = int(hashlib.sha256(f"split:{unit}".encode()).hexdigest()[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS
        return Split.TEST if draw < self.test_fraction else Split.TRAIN
