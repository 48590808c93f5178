"""Turn an image upright by its EXIF or XMP orientation, the only part of its metadata that is needed."""

from __future__ import annotations

import warnings

from PIL import ExifTags, Image

DAMAGED_NOTE = "EXIF is damaged, orientation not known, left as stored"
#: What turns the stored picture upright, by the EXIF orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_upright(picture: Image.Image) -> tuple[Image.Image, str | None]:
    """Turn an image upright, and note damaged metadata that do not say which way up it is.

    Damaged metadata say nothing about the pixels, so they are no reason to refuse them.
    """
    picture.load()
    orientation, is_damaged = _orientation(picture.info)
    turn = _TURNS.get(orientation) if orientation is not None else None
    note = DAMAGED_NOTE if is_damaged and orientation is None else None
    return (picture if turn is None else picture.transpose(turn)), note


def _orientation(info: dict[str | tuple[int, int], object]) -> tuple[int | None, bool]:
    """The orientation, 1 to 8, where the metadata state one, and whether they are damaged."""
    bare = Image.new("L", (1, 1))  # of the image's own metadata Pillow keeps what it could read, and does not report damage
    bare.info = info
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            value = bare.getexif().get(ExifTags.Base.Orientation)
        except MemoryError:
            raise
        except Exception:  # Pillow promises no error type for what a file's metadata hold
            return None, True
    if value in (None, 0):  # some cameras write 0 for not known
        return None, bool(warned)
    known = isinstance(value, int) and 1 <= value <= 8
    return (value, False) if known else (None, True)
