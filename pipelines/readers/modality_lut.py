"""Convert stored DICOM pixels to physical values: the Modality LUT module (PS3.3 C.11.1), a table or slope and intercept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.lookup_table import LookupTable, parse_lookup_table
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array
from crossdim.storage_schema.vocabulary import Modality

#: RescaleType and ModalityLUTType of Hounsfield units; nothing stated means HU in a CT image (PS3.3 C.11.1.1.2).
_HOUNSFIELD = frozenset({"", "HU", "HU_MOD"})
#: Stored pixels of integers have at most 32 bits.
_MAX_STORED = 2.0**32
NO_RESCALE = "CT without RescaleSlope and RescaleIntercept, stored values taken as HU"
NOT_HOUNSFIELD = "CT whose rescaled values are stated to be no HU, taken as HU"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModalityTransform:
    """How the stored values of one file become physical ones.

    Attributes:
        slope_stated: whether the header has a slope, or a table.
        intercept_stated: whether the header has an intercept, or a table.
        hounsfield: whether the header names HU as the unit, or none.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: LookupTable | None = None
    slope_stated: bool = False
    intercept_stated: bool = False
    hounsfield: bool = True

    @property
    def stated(self) -> bool:
        """Whether the header has a table, or a slope or intercept."""
        return self.slope_stated or self.intercept_stated

    def physical(self, stored: Array) -> npt.NDArray[np.float32]:
        """Stored values in physical units (HU for CT), float32."""
        values = self.table(stored) if self.table else stored.astype(np.float64) * self.slope + self.intercept
        return values.astype(np.float32)

    def note(self, modality: Modality) -> str | None:
        """A note about CT values that may not be HU."""
        if modality is not Modality.CT:
            return None
        if not self.stated:
            return NO_RESCALE
        return None if self.hounsfield else NOT_HOUNSFIELD


def parse_modality_transform(dataset: Any) -> ModalityTransform:
    """Parse the transform that a header states. A table takes precedence; a missing slope is 1, a missing intercept 0.

    Raises:
        SampleError: rule ``modality_lut`` for a table that does not fit its descriptor, ``rescale`` for a slope or intercept
            that is no finite number or leads beyond float32, or a slope of zero.
    """
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        return ModalityTransform(
            table=parse_lookup_table(dataset, item.get("LUTDescriptor"), item.get("LUTData"), rule="modality_lut"),
            slope_stated=True,
            intercept_stated=True,
            hounsfield=_word(item, "ModalityLUTType") in _HOUNSFIELD,
        )
    stated = _rescale_of_frame(dataset)
    slope, intercept = _finite(stated, "RescaleSlope"), _finite(stated, "RescaleIntercept")
    if slope == 0:
        raise SampleError("rescale", "RescaleSlope is 0, which makes every pixel the same; correct the header")
    if abs(slope or 1) * _MAX_STORED + abs(intercept or 0) > np.finfo(np.float32).max:
        raise SampleError(
            "rescale",
            f"RescaleSlope {slope} and RescaleIntercept {intercept} lead beyond the range of float32; correct the header",
        )
    return ModalityTransform(
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        slope_stated=slope is not None,
        intercept_stated=intercept is not None,
        hounsfield=_word(stated, "RescaleType") in _HOUNSFIELD,
    )


def _rescale_of_frame(dataset: Any) -> Any:
    """Where the rescale is: in the dataset, or, in an enhanced object of one frame, in its functional groups."""
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        return dataset
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or ())[:1]:
            if group.get("PixelValueTransformationSequence"):
                return group.PixelValueTransformationSequence[0]
    return dataset


def _word(dataset: Any, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip().upper()


def _finite(dataset: Any, keyword: str) -> float | None:
    """A number of the header; None where it is absent or empty."""
    try:
        value = dataset.get(keyword)
        number = None if value is None or value == "" else float(value)
    except (TypeError, ValueError) as error:
        raise SampleError("rescale", f"{keyword} is not one decimal number; correct the header") from error
    if number is not None and not np.isfinite(number):
        raise SampleError("rescale", f"{keyword} is {number}; a finite number is needed")
    return number
