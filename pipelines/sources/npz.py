"""MedMNIST's .npz files: zip archives of ``{train,val,test}_images`` and ``_labels``, read by member and never as a whole.

The layout is that of MedMNIST v2 (Yang et al., Scientific Data 2023), 2D and 3D. Nothing is unpickled, and no array is allocated
before its header, the directory of the archive and the compressed bytes agree on its size.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from crossdim.pipelines.readers.npy_header import MAGIC, NpyHeader, parse_npy_header
from crossdim.pipelines.sources.npz_paths import PARTS
from crossdim.storage_schema.errors import SampleError

#: Images that one file may hold, and bytes of its labels: four times as many as the largest of MedMNIST. Ours.
MAX_IMAGES, MAX_LABEL_BYTES = 1 << 20, 1 << 24
#: Bytes that one byte of DEFLATE can become at most (zlib's technical notes); a directory that claims more is forged.
_MAX_DEFLATE = 1032
#: Members of an archive that are looked at; the largest archives of arrays have some dozens. Ours.
_MAX_MEMBERS = 1000
_HEAD_BYTES, _STEP_BYTES = 1 << 16, 1 << 20
_ALIGNMENT = 64
_MEMBERS = {f"{part}_{what}.npy" for part in PARTS for what in ("images", "labels")}
_ENCRYPTED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Images:
    """The images of one part: their member, its header, the header of each image alone, and their labels."""

    member: zipfile.ZipInfo
    header: NpyHeader
    image_header: bytes
    labels: tuple[str, ...] | None

    @property
    def num_bytes(self) -> int:
        """Of one image without a header."""
        return math.prod(self.header.shape[1:]) * self.header.dtype.itemsize


class NpzFile:
    """An open file of MedMNIST's layout.

    Args:
        stream: of the file, seekable.

    Raises:
        SampleError: rule ``archive`` if the zip archive or its sizes are not sound, ``archive_layout`` if the arrays do not fit
            each other, or a rule of .npy headers.
    """

    def __init__(self, stream: BinaryIO) -> None:
        with translate_damage():
            self._archive = zipfile.ZipFile(stream)
            members = self._archive.infolist()
            if len(members) > _MAX_MEMBERS:
                raise SampleError("archive", f"the archive has {len(members):,} members; at most {_MAX_MEMBERS:,} are looked at")
            by_name = {member.filename: member for member in members}
            unknown = [name for name in by_name if name not in _MEMBERS]
            if unknown and len(unknown) < len(by_name):
                raise SampleError(
                    "archive_layout", f"{len(unknown)} of {len(by_name)} arrays have other names than MedMNIST's; remove them"
                )
            self._parts = {part: self._read_part(part, by_name) for part in PARTS if f"{part}_images.npy" in by_name}
        self._streams: dict[str, BinaryIO] = {}
        self._lock = threading.Lock()
        self._last: tuple[tuple[str, int], bytes] = (("", 0), b"")
        if sum(part.header.shape[0] for part in self._parts.values()) > MAX_IMAGES:
            raise SampleError("too_large", f"the file holds more than {MAX_IMAGES:,} images; divide it")

    def iterate_images(self) -> Iterator[tuple[str, int, int, str | None]]:
        """Part, index, size in bytes and label of every image; none if the file is of another layout."""
        for name, part in self._parts.items():
            size = len(part.image_header) + part.num_bytes
            for index in range(part.header.shape[0]):
                yield name, index, size, part.labels[index] if part.labels else None

    def read_image(self, part: str, index: int) -> bytes:
        """Read one image; in the order of the file this is one pass over it.

        Args:
            part: key of ``PARTS``.
            index: in that part.

        Returns:
            An .npy file with that image alone, the same bytes whatever wrote the archive.

        Raises:
            SampleError: rule ``archive`` if the member is damaged, which its checksum tells before the first image is given.
            KeyError: if there is no such image.
        """
        images = self._parts[part]
        if not 0 <= index < images.header.shape[0]:
            raise KeyError(f"{part}/{index}")
        with self._lock, translate_damage():
            if self._last[0] == (part, index):  # going back would inflate the member anew from its beginning
                return self._last[1]
            if part not in self._streams:
                self._check_member(images.member)
                self._streams[part] = self._archive.open(images.member)  # type: ignore[assignment]
            self._streams[part].seek(images.header.data_offset + index * images.num_bytes)
            data = self._streams[part].read(images.num_bytes)
            if len(data) != images.num_bytes:
                raise SampleError("archive", "the archive ends inside of its images; the file is cut")
            self._last = (part, index), images.image_header + data
            return self._last[1]

    def _check_member(self, member: zipfile.ZipInfo) -> None:
        """Read a member to its end, where ``zipfile`` compares the checksum."""
        with self._archive.open(member) as stream:
            while stream.read(_STEP_BYTES):
                pass

    def _read_part(self, part: str, members: dict[str, zipfile.ZipInfo]) -> _Images:
        member = members[f"{part}_images.npy"]
        header = self._read_header(member)
        count, *shape = header.shape
        if len(shape) not in (2, 3) or header.fortran_order:
            raise SampleError(
                "archive_layout",
                f"{part}_images has shape {header.shape}; it must be (N, H, W), (N, H, W, 3) or (N, D, H, W) in C order",
            )
        labels = None
        if (of_labels := members.get(f"{part}_labels.npy")) is not None:
            labels = self._read_labels(of_labels, part, count)
        return _Images(member=member, header=header, image_header=_build_header(header.dtype, shape), labels=labels)

    def _read_header(self, member: zipfile.ZipInfo) -> NpyHeader:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise SampleError("archive", "a member is encrypted, or compressed otherwise than numpy.savez_compressed does")
        if member.file_size > _MAX_DEFLATE * (member.compress_size + 1):
            raise SampleError(
                "archive", f"a member claims {member.file_size:,} bytes from {member.compress_size:,}, which is impossible"
            )
        try:
            with self._archive.open(member) as stream:
                header = parse_npy_header(stream.read(_HEAD_BYTES))
        except EOFError as error:
            raise SampleError("archive", "the archive ends inside the header of an array; the file is cut") from error
        if header.data_offset + header.num_bytes != member.file_size:
            raise SampleError(
                "archive", f"an array claims {header.num_bytes:,} bytes; its member of the archive has {member.file_size:,}"
            )
        return header

    def _read_labels(self, member: zipfile.ZipInfo, part: str, count: int) -> tuple[str, ...]:
        header = self._read_header(member)
        if (
            header.shape[0] != count
            or len(header.shape) > 2
            or header.dtype.kind not in "iu"
            or (header.fortran_order and (header.shape[1:] != (1,)))
        ):
            raise SampleError(
                "archive_layout",
                f"{part}_labels has shape {header.shape} of {header.dtype}; {count:,} images have (N, 1) whole numbers",
            )
        if header.num_bytes > MAX_LABEL_BYTES:
            raise SampleError("too_large", f"{part}_labels has {header.num_bytes:,} bytes; at most {MAX_LABEL_BYTES:,} are read")
        values = np.frombuffer(self._archive.read(member), header.dtype, offset=header.data_offset).reshape(count, -1)
        return tuple("_".join(map(str, row)) for row in values.tolist())


@contextlib.contextmanager
def translate_damage() -> Iterator[None]:
    """Turn what ``zipfile`` and ``zlib`` raise at a damaged archive into a refusal."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, struct.error, UnicodeDecodeError) as error:
        raise SampleError("archive", f"the archive is damaged or cut ({type(error).__name__}); copy it again") from error


def _build_header(dtype: np.dtype[np.generic], shape: list[int]) -> bytes:
    """A header of .npy version 1.0. NumPy's own has had other paddings in other versions, which would change keys."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({', '.join(map(str, shape))}), }}"
    start = len(MAGIC) + 4
    padded = text.ljust(-(-(start + len(text) + 1) // _ALIGNMENT) * _ALIGNMENT - start - 1) + "\n"
    return MAGIC + b"\1\0" + struct.pack("<H", len(padded)) + padded.encode()


def open_npz(data: bytes) -> NpzFile:
    """Open a file that is in memory.

    Args:
        data: the file.

    Returns:
        The open file.

    Raises:
        SampleError: as :class:`NpzFile`.
    """
    return NpzFile(io.BytesIO(data))
