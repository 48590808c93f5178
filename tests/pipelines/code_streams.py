"""A small image as a DICOM file of every compressed syntax, made by the encoders of other projects."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.pipelines.dicom_files import dicom_dataset

#: Syntaxes whose pixels are in a code stream of their own.
ENCAPSULATED = (JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000, RLELossless)
COMPRESSED = (*ENCAPSULATED, DeflatedExplicitVRLittleEndian)
LOSSLESS = (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless, DeflatedExplicitVRLittleEndian)


def phantom(height: int = 48, width: int = 64, dtype: str = "u2") -> np.ndarray:
    """A disc with a gradient and noise: (H, W)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    noise = np.random.default_rng(0).integers(0, 8, (height, width))
    return np.where(x**2 + y**2 < 0.8, 100 + 60 * x + noise, noise).astype(dtype)


def saved(image: np.ndarray, kind: str, **options: object) -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def file_of(dataset: pydicom.Dataset) -> bytes:
    """A dataset as a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def compressed(syntax: UID) -> bytes:
    """The phantom as a DICOM file of a syntax; 8 bits for JPEG Baseline, 16 for all others."""
    dataset = dicom_dataset(phantom(dtype="u1" if syntax == JPEGBaseline8Bit else "u2"))
    if syntax == JPEGBaseline8Bit:
        dataset.PixelData = encapsulate([saved(phantom(dtype="u1"), "JPEG", quality=90)])
    elif syntax == JPEGLosslessSV1:
        dataset.PixelData = encapsulate([jpeg_lossless(phantom())])
    elif syntax in ENCAPSULATED:
        options = {JPEGLSNearLossless: {"jls_error": 2}, JPEG2000: {"j2k_cr": [4]}}.get(syntax, {})
        dataset.compress(syntax, generate_instance_uid=False, **options)
    dataset.file_meta.TransferSyntaxUID = syntax
    return file_of(dataset)


def jpeg_lossless(pixels: np.ndarray) -> bytes:
    """JPEG Lossless with the first predictor (T.81 annex H), every category of difference in a code of 5 bits."""
    height, width = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << 15
    bits = []
    for difference in ((values - predicted + (1 << 15)) % (1 << 16) - (1 << 15)).ravel().tolist():
        category = abs(difference).bit_length()
        bits.append(f"{category:05b}")
        if category and category < 16:
            bits.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    tables = b"\0" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    frame = struct.pack(">BHHB", 16, height, width, 1) + b"\1\x11\0"
    segments = ((0xC3, frame), (0xC4, tables), (0xDA, b"\1\1\0\1\0\0"))
    return b"\xff\xd8" + b"".join(struct.pack(">BBH", 255, m, len(d) + 2) + d for m, d in segments) + scan + b"\xff\xd9"


def frame_of(data: bytes) -> bytes:
    """The code stream of a file with one frame."""
    return next(generate_frames(pydicom.dcmread(io.BytesIO(data)).PixelData, number_of_frames=1))


def with_frame(data: bytes, frame: bytes) -> bytes:
    """The file with another code stream."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PixelData = encapsulate([frame])
    return file_of(dataset)
