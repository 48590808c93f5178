"""Decode JPEG files with libjpeg-turbo, with its warnings as errors.

libjpeg continues where a stream is damaged, fills up what is missing, and gives a warning that Pillow drops. The pixels of an
intact file are those that Pillow gives. JPEG has no checksum: a damaged byte that still reads as a valid stream is not noticed.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from PIL import Image

from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError

#: What Pillow calls the colours of a file, and what the decoder is asked for.
_COLOURS = {"L": "GRAY", "RGB": "RGB"}

#: In the words of libjpeg-turbo's simple interface, which reads the usual subsamplings alone; they say nothing of damage.
_UNUSUAL = "subsampling"
UNCHECKED_NOTE = "unusual chroma subsampling, decoded without libjpeg's warnings"


def decode_jpeg(data: bytes, opened: Image.Image) -> tuple[Image.Image, str | None]:
    """Decode the pixels of a JPEG file that Pillow has opened.

    Args:
        data: the file.
        opened: its header.

    Returns:
        The picture, with the header's EXIF and other information, and a note of what was decided.

    Raises:
        SampleError: rule ``damaged`` for whatever libjpeg warns of.
    """
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace=_COLOURS.get(opened.mode, "CMYK"), strict=True)
    except ValueError as error:
        if _UNUSUAL in str(error):
            opened.load()
            return opened, UNCHECKED_NOTE
        raise SampleError("damaged", f"the JPEG stream is damaged: {format_foreign_text(error)}; export it again") from error
    if opened.mode not in _COLOURS:  # Pillow knows which programs store CMYK inverted
        opened.load()
        return opened, None
    picture = Image.fromarray(np.squeeze(pixels, axis=2) if opened.mode == "L" else pixels)
    picture.info = opened.info
    return picture, None
