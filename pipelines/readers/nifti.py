"""Recognise NIfTI files, plain or gzipped."""

from __future__ import annotations

from crossdim.pipelines.readers.inflate import GZIP_MAGIC, inflate_head, is_cut
from crossdim.pipelines.readers.nifti_header import HEADER_BYTES, looks_like_nifti
from crossdim.storage_schema.errors import SampleError

#: Name of the format.
NIFTI = "nifti"


def matches(head: bytes, is_promised: bool) -> bool:
    """Whether the first bytes of a file are NIfTI, plain or in gzip.

    Args:
        head: the first bytes.
        is_promised: whether the file has a suffix of NIfTI; a damaged gzip stream is an error only then.

    Returns:
        True for a NIfTI header, valid or not.

    Raises:
        SampleError: rule ``truncated`` or ``gzip`` for a file with such a suffix that is cut, or damaged, inside the header.
    """
    if not head.startswith(GZIP_MAGIC):
        return looks_like_nifti(head)
    try:
        start = inflate_head(head, HEADER_BYTES[2])
        if is_promised and len(start) < HEADER_BYTES[1] and is_cut(head):
            message = f"the gzip stream ends after {len(start)} bytes of content, inside the NIfTI header; the file is cut"
            raise SampleError("truncated", message)
        return looks_like_nifti(start)
    except SampleError:
        if is_promised:
            raise
        return False
