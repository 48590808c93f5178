"""Files of every format that is read, and ways to damage them."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from tests.pipelines.code_streams import COMPRESSED, compressed, file_of, phantom, saved
from tests.pipelines.corpora import blob, nifti_bytes
from tests.pipelines.dicom_files import dicom_dataset

#: Markers whose segments say how large an image is, and where behind the marker they do.
_SIZES = ((b"\xff\xc0", 5), (b"\xff\xc2", 5), (b"\xff\xc3", 5), (b"\xff\xf7", 5), (b"\xff\x51", 6), (b"IHDR", 4))
_EXTREMES = (
    b"\0\0",
    b"\xff\xff",
    b"\x7f\xff",
    b"\x80\0",
    b"\0\1",
    b"\xea\x60",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
)


@cache
def sound_images() -> dict[str, bytes]:
    """Pictures and DICOM files by name: every format, every compressed syntax."""
    grey = phantom(dtype="u1")
    files = {f"{syntax.keyword}.dcm": compressed(syntax) for syntax in COMPRESSED}
    plain = dicom_dataset(phantom())
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return files | {
        "plain.dcm": file_of(plain),
        "grey.png": saved(grey, "PNG"),
        "deep.png": saved(phantom(), "PNG"),
        "colour.png": saved(np.dstack([grey] * 3), "PNG"),
        "baseline.jpg": saved(grey, "JPEG"),
        "colour.jpg": saved(np.dstack([grey, grey.T.reshape(grey.shape), grey]), "JPEG", restart_marker_rows=1),
        "progressive.jpg": saved(grey, "JPEG", progressive=True),
    }


@cache
def sound_volumes() -> dict[str, bytes]:
    """NIfTI files by name: plain and gzipped, one frame and several."""
    plain = nifti_bytes(blob((60, 56, 52), 1), (2.0, 2.0, 2.0))
    frames = nifti_bytes(np.stack([blob((40, 36, 32), n) for n in range(4)], axis=-1), (3.0, 3.0, 3.0))
    return {
        "plain.nii": plain,
        "packed.nii.gz": gzip.compress(plain, mtime=0),
        "frames.nii": frames,
        "frames.nii.gz": gzip.compress(frames, mtime=0),
    }


def damaged(name: str, data: bytes, rng: random.Random) -> bytes:
    """The file with one to three faults, behind its checksums as often as before them."""
    inside = name.endswith(".gz") and rng.random() < 0.5
    content = bytearray(gzip.decompress(data) if inside else data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_DAMAGE)(content, rng) or bytearray(b"\0")
    if inside:
        return gzip.compress(bytes(content), 1, mtime=0)
    return _with_checksums(bytes(content)) if name.endswith(".png") and rng.random() < 0.7 else bytes(content)


def _place(data: bytearray, rng: random.Random) -> int:
    """Somewhere, and in a header half of the time."""
    return rng.randrange(min(len(data), 1200)) if rng.random() < 0.5 else rng.randrange(len(data))


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: _place(data, rng)]


def _insert(data: bytearray, rng: random.Random) -> bytearray:
    where = _place(data, rng)
    return data[:where] + rng.randbytes(rng.randrange(1, 9)) + data[where:]


def _remove(data: bytearray, rng: random.Random) -> bytearray:
    where = _place(data, rng)
    return data[:where] + data[where + rng.randrange(1, 9) :]


def _fill(data: bytearray, rng: random.Random) -> bytearray:
    where = _place(data, rng)
    run = bytes([rng.choice((0, 255, rng.randrange(256)))]) * rng.randrange(2, 200)
    data[where : where + len(run)] = run
    return data


def _extreme(data: bytearray, rng: random.Random) -> bytearray:
    """A length, count or size that is as small or large as it can be."""
    where, value = _place(data, rng), rng.choice(_EXTREMES)
    data[where : where + len(value)] = value if rng.random() < 0.5 else value[::-1]
    return data


def _resize(data: bytearray, rng: random.Random) -> bytearray:
    """Another size in the header of a compressed image."""
    found = [(at, skip) for marker, skip in _SIZES if (at := data.find(marker)) >= 0]
    if not found:
        return _extreme(data, rng)
    at, skip = rng.choice(found)
    where = at + skip + rng.choice((0, 2, 4))
    data[where : where + 2] = struct.pack(">H", rng.choice((0, 1, 47, 63, 20000, 60000, rng.randrange(65536))))
    return data


_DAMAGE: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (_flip, _cut, _insert, _remove, _fill, _extreme, _resize)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks carry the checksums of what they hold now, so that decoders look at it."""
    out, offset = bytearray(data[:8]), 8
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        body = data[offset + 4 : offset + 8 + length]
        out += data[offset : offset + 4] + body + struct.pack(">I", zlib.crc32(body))
        offset += 12 + length
    return bytes(out + data[offset:])
