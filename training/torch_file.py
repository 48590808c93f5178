"""PyTorch's files, read as data: no code runs, and a damaged file is reported in a sentence.

A file is a ZIP archive whose members have a CRC-32. ``torch.load`` does not check it, so it is checked here, before the file
is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crossdim.storage_schema.errors import StorageError

#: What ``torch.load`` raises at bytes that are no file of PyTorch, or not one that loads with ``weights_only``.
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ValueError, LookupError, TypeError, AttributeError),
    *(EOFError, OSError, ArithmeticError, AssertionError, ImportError, struct.error),
)


def load_document(data: bytes, subject: str) -> Any:
    """Load what a file of PyTorch holds, on the CPU.

    Args:
        data: all bytes of the file.
        subject: where they came from, for the error.

    Returns:
        Dictionaries, lists, numbers, texts and tensors.

    Raises:
        StorageError: if it is not such a file, is damaged, or holds more than data.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_stored(archive, len(data))
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        reason = f"its member {damaged} is not what was written"
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
    raise StorageError(f"{subject}: is no whole file of PyTorch that holds data alone: {reason}; restore it, or write it anew")


def _check_stored(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """Members are as large as they are in the file, as PyTorch writes them, so that reading takes no more memory than the file.

    Raises:
        ValueError: if one is compressed, or all together are larger than the file.
    """
    members = archive.infolist()
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size]
    if packed:
        raise ValueError(f"its member {packed[0]} is compressed; PyTorch stores members as they are")
    if (stated := sum(member.file_size for member in members)) > num_bytes:
        raise ValueError(f"its members state {stated} bytes, and the file has {num_bytes}")
    # Of what ``weights_only`` lets a pickle call, this alone takes memory by a number: bytearray(2**40).
    if any(b"bytearray" in archive.read(member) for member in members if member.filename.endswith(".pkl")):
        raise ValueError("it holds a bytearray; runs and encoders hold tensors and plain values")


def check_tensor(found: Any, like: Tensor, subject: str) -> None:
    """Check that a value is a dense tensor of the same shape and dtype as another, with finite numbers.

    Args:
        found: the value.
        like: the other tensor, which may be on the meta device.
        subject: name of the value, for the error.

    Raises:
        StorageError: if it is not dense, of another shape or dtype, or not finite.
    """
    if not isinstance(found, Tensor):
        raise StorageError(f"{subject} is {type(found).__name__}, expected a tensor")
    if found.layout is not torch.strided or found.is_quantized or found.device.type == "meta":
        raise StorageError(f"{subject} is no dense tensor")
    if (found.dtype, found.shape) != (like.dtype, like.shape):
        stated = f"{found.dtype} of {list(found.shape)}"
        raise StorageError(f"{subject} is {stated}, expected {like.dtype} of {list(like.shape)}")
    if not is_finite(found):
        raise StorageError(f"{subject} has numbers that are not finite")


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of a dense tensor is NaN or infinite."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def tensor_hash(tensor: Tensor) -> str:
    """sha256 of a tensor's type, shape and numbers."""
    numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    head = f"{tensor.dtype} {list(tensor.shape)} ".encode()
    return hashlib.sha256(head + numbers.tobytes()).hexdigest()


def tensor_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """:func:`tensor_hash` of each tensor, by its name."""
    return {name: tensor_hash(tensor) for name, tensor in tensors.items()}
