"""Generated inputs that the tests of several packages need."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Array, Origin, Sample, Scaling
from crossdim.storage_schema.vocabulary import Modality, Presentation

#: Stored dtypes of the format, and float32 as networks give it back.
DTYPES = st.sampled_from([np.dtype(name) for name in ("u1", "<u2", "<i2", "<f4")])


def arrays_of(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    """Arrays of one shape in any stored dtype, without NaN."""
    return DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, shape, elements=_elements(dtype)))


def _elements(dtype: np.dtype[np.generic]) -> st.SearchStrategy[float] | None:
    return st.floats(-1e6, 1e6, width=32) if dtype.kind == "f" else None


@st.composite
def views(draw: st.DrawFn, *, covered: bool = True) -> tuple[Array, Pseudo3D]:
    """An image (C, H, W) and a geometry that tiles it; with ``covered``, every pixel is read by some window."""
    window = draw(st.integers(1, 5))
    stride = draw(st.integers(1, window if covered else 7))
    padding = draw(st.integers(0, window - 1))
    channel_mode = draw(st.sampled_from(["gray", "keep", "depth"]))
    sides = [window + stride * draw(st.integers(0, 4)) - 2 * padding for _ in range(2)]
    # Padding can eat the whole image: add strides until something is left.
    height, width = (side + stride * max(0, -(-(1 - side) // stride)) for side in sides)
    spec = Pseudo3D(
        window=window,
        stride=stride,
        padding=padding,
        layout=draw(st.sampled_from(["offset", "window"])),
        depth_order=draw(st.sampled_from(["row_major", "serpentine"])),
        channel_mode=channel_mode,
    )
    channels = 1 if channel_mode == "gray" else draw(st.integers(1, 3))
    return draw(arrays_of((channels, height, width))), spec


def sample(array: Array, presentation: Presentation = Presentation.IMAGE, **changes: object) -> Sample:
    """A sample around an array; everything else has a plain value that ``changes`` may replace."""
    values: dict[str, object] = {
        "key": "0123456789abcdef" * 2,
        "presentation": presentation,
        "array": array,
        "modality": Modality.CT,
        "scaling": Scaling(slope=1.0, intercept=-1024.0, low=-1000.0, high=1000.0),
        "origin": Origin(uri="s3://lab/raw/a.dcm", sha256="ab" * 32),
    }
    return Sample(**(values | changes))
