"""What the voxels of a volume can be, where a label map has to be told from an image."""

from __future__ import annotations

from enum import StrEnum


class Values(StrEnum):
    """What the voxels of a volume are."""

    CONSTANT = "constant"  # one value
    LABELS = "labels"
    GAPPED_LABELS = "gapped_labels"  # labels, were there not voxels that are no numbers
    FRACTIONS = "fractions"  # from 0 to 1, as probabilities of one label are
    GRAY = "gray"  # as of an image: neighbours mostly differ; only volumes and pictures named as label maps are asked for it
    OTHER = "other"
