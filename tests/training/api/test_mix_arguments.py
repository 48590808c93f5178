"""What ``crossdim.mix`` and ``embed`` are given: wrong types in a sentence, read-only arrays without a warning."""

from __future__ import annotations

import numpy as np
import pytest

import crossdim
from crossdim.storage_schema.errors import UsageError
from crossdim.training.api.inputs import split_inputs


def test_a_list_is_no_mapping_of_weights() -> None:
    with pytest.raises(UsageError, match="mix takes weights by dataset"):
        crossdim.mix([])  # type: ignore[arg-type]


def test_a_read_only_array_is_copied_and_not_warned_of() -> None:
    """Warnings are errors in tests; arrays of a dataset are read-only."""
    array = np.zeros((1, 8, 8), np.float32)
    array.setflags(write=False)
    [one] = split_inputs(array, 1, None)
    one.values.add_(1)
    assert not array.any()
