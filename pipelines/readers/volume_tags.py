"""Read from a DICOM header what tells the volumes of one series apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.header_info import VolumeTags
from crossdim.storage_schema.errors import SampleError

#: Third value of ImageType, or a later one (PS3.3 C.8.3.1.1.1 and vendors), and of ComplexImageComponent.
_COMPONENTS = {
    "M": 1,
    "MAGNITUDE": 1,
    "P": 2,
    "PHASE": 2,
    "PHASE MAP": 2,
    "R": 3,
    "REAL": 3,
    "I": 4,
    "IMAGINARY": 4,
}
#: Elements of vendors that state what DiffusionBValue does: Siemens, GE (with a flag of 10^9 added).
_B_VALUES = (0x0019100C, 0x00431039)
_GE_FLAG = 10**9
#: Siemens' direction of diffusion.
_GRADIENT = 0x0019100E


Get = Callable[[str | int], Any]


def read_volume_tags(dataset: Any) -> VolumeTags:
    """Read them; what is absent or no number is None, as it decides nothing."""
    try:
        with translate_errors("a tag of the DICOM header cannot be read"):
            return _read(dataset.get)
    except SampleError:
        return _read(partial(_get_readable, dataset))  # one by one takes four times as long


def _get_readable(dataset: Any, name: str | int) -> Any:
    """An element, or its value; None where it cannot be read."""
    try:
        with translate_errors("a tag of the DICOM header cannot be read"):
            return dataset.get(name)
    except SampleError:
        return None


def _read(get: Get) -> VolumeTags:
    gradients = (_numbers(get, name) for name in ("DiffusionGradientOrientation", _GRADIENT))
    b_value = _number(get, "DiffusionBValue", *_B_VALUES)
    return VolumeTags(
        component=_component(get),
        echo_ms=_number(get, "EchoTime", "EffectiveEchoTime", "EchoNumbers"),
        temporal_position=_integer(get, "TemporalPositionIdentifier", "TemporalPositionIndex"),
        b_value=None if b_value is None else b_value % _GE_FLAG,
        gradient=next((values for values in gradients if len(values) == 3), None),
        trigger_ms=_number(get, "TriggerTime", "NominalCardiacTriggerDelayTime"),
        acquisition=_integer(get, "AcquisitionNumber"),
        acquired_s=_seconds(get),
        instance=_integer(get, "InstanceNumber"),
    )


def _component(get: Get) -> int | None:
    stated = [str(get("ComplexImageComponent") or "").upper()]
    stated += [str(word).upper() for word in list(get("ImageType") or ())[2:]]
    return next((_COMPONENTS[word] for word in stated if word in _COMPONENTS), None)


def _number(get: Get, *names: str | int) -> float | None:
    """The first number of the first of these elements that has one."""
    return next((values[0] for name in names if (values := _numbers(get, name))), None)


def _numbers(get: Get, name: str | int) -> tuple[float, ...]:
    value = get(name)
    if value is None:
        return ()
    if isinstance(name, int):
        value = value.value
    if isinstance(value, bytes):  # of a private element whose type is not known, written as text
        value = value.decode("latin-1").strip(" \0").split("\\")
    try:
        listed = tuple(float(one) for one in ([value] if isinstance(value, str | int | float) else value or ()))
    except (TypeError, ValueError):
        return ()
    return listed if all(map(math.isfinite, listed)) else ()


def _integer(get: Get, *names: str) -> int | None:
    number = _number(get, *names)
    return int(number) if number is not None and number == int(number) else None


def _seconds(get: Get) -> float | None:
    """AcquisitionTime (HHMMSS.FFFFFF, of which parts may be left out) in seconds of the day."""
    text = str(get("AcquisitionTime") or "").strip()
    if len(text) < 6 or not text.replace(".", "", 1).isdigit():
        return None
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])
