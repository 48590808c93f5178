"""Pictures that are named as label maps and are images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.neighbours import Texture, find_commonest

#: Of a larger picture, the middle is looked at, so many pixels wide and high. Ours.
_MAX_SIDE = 4096
#: Values of a picture so near to its smallest or largest are taken for them: JPEG blurs what had two values. Ours.
_NEAR_END = 16
#: Share of such pixels, outside of the background, above which a picture is one of two values. Ours: photographs have below 0.1.
_TWO_VALUED = 0.6


def is_gray_picture(image_CHW: npt.NDArray[np.uint8 | np.uint16]) -> bool:
    """Whether a picture that is named as a label map is an image: neighbouring pixels mostly differ, and are no two values.

    Args:
        image_CHW: as decoded.
    """
    down, right = (max(0, (side - _MAX_SIDE) // 2) for side in image_CHW.shape[1:])
    middle_CHW = image_CHW[:, down : down + _MAX_SIDE, right : right + _MAX_SIDE]
    pixels_HW = np.zeros(middle_CHW.shape[1:], np.int64)
    for channel in middle_CHW:
        pixels_HW = pixels_HW * 65536 + channel
    texture = Texture()
    texture.add(pixels_HW, bright_background=True)
    if not texture.is_gray():
        return False
    brightest = middle_CHW.max(axis=0).astype(np.int64)
    shown = brightest[pixels_HW != find_commonest(pixels_HW)]
    near = _NEAR_END * (257 if image_CHW.dtype.itemsize == 2 else 1)
    at_ends = (shown <= int(brightest.min()) + near) | (shown >= int(brightest.max()) - near)
    return float(at_ends.mean()) < _TWO_VALUED
