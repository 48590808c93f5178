"""A histogram of the values of an input as its reader gives them, before any stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossdim.storage_schema.sample import Sample

#: Bins of a histogram.
BINS = 128
#: Percentiles between which the bins lie; what is beyond is counted in the first and in the last bin. Ours.
_RANGE = (0.1, 99.9)
#: Values that are counted at most, evenly chosen: a share is then known within 0.1 percent. Ours.
_MOST_VALUES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceValues:
    """Values of one input in physical units (HU for CT).

    Attributes:
        low: where the first bin begins.
        high: where the last bin ends.
        minimum: smallest value.
        maximum: largest value.
        shares: of the values in each of :data:`BINS` bins of one width; they sum to 1.
    """

    low: float
    high: float
    minimum: float
    maximum: float
    shares: tuple[float, ...]


def count_source_values(sample: Sample) -> SourceValues:
    """Count the values of a sample that no stage has changed; voxels outside of the field of view do not count.

    Args:
        sample: an image or a whole volume, as a reader decodes it.
    """
    stored = sample.array if sample.outside is None else sample.array[:, ~sample.outside]
    minimum, maximum = (float(sample.scaling.physical(np.asarray(end))) for end in (stored.min(), stored.max()))
    flat = stored.reshape(-1)
    values = sample.scaling.physical(flat[:: -(-flat.size // _MOST_VALUES)]).astype(np.float64)
    low, high = (float(value) for value in np.percentile(values, _RANGE))
    if not low < high:
        low, high = min(minimum, low), max(maximum, low + 1.0)
    counts = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))[0]
    shares = tuple(float(f"{share:.4g}") for share in counts / values.size)
    return SourceValues(low=low, high=high, minimum=minimum, maximum=maximum, shares=shares)
