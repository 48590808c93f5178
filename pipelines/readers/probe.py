"""Recognise one file by its first bytes: its format and header, or the name of a format that is not read."""

from __future__ import annotations

from collections.abc import Callable

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import HEAD_BYTES, ReadRules
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.registry import READERS, promised_family
from crossdim.pipelines.readers.signatures import Unread, identify_promised_unread, identify_unread, image_format
from crossdim.storage_schema.errors import SampleError

_LFS = b"version https://git-lfs"


def probe(name: str, size: int, read: Callable[[int], bytes], rules: ReadRules) -> HeaderInfo | Unread:
    """Read the header of one file, or recognise what the file is if neither its name nor its content is of a format that is read.

    Args:
        name: the file's name.
        size: of the file, in bytes.
        read: gives the first n bytes.
        rules: size guards.

    Returns:
        The header, or the name of another format.

    Raises:
        SampleError: for a file that has a name or content of our formats and breaks a rule of it.
    """
    promise = promised_family(name)
    if size == 0:
        if promise is None:
            return identify_unread(name, b"")
        raise SampleError("empty", "the file has no bytes; its copy may have failed")
    head = read(min(size, HEAD_BYTES))
    if promise is None and (unread := identify_promised_unread(name, head)):
        return unread
    reader = _find_reader(head, promise)
    if reader is None:
        if promise is None:
            return identify_unread(name, head)
        raise _build_promise_error(head, promise)
    family = reader.family_name
    if promise and family != promise:
        raise SampleError("wrong_format", f"the name promises {promise}, the content is {family}; rename or replace the file")
    try:
        return reader.read_header(head, rules, whole=len(head) == size)
    except EOFError:
        return reader.read_header(read(size), rules, whole=True)


def _find_reader(head: bytes, promise: str | None) -> Reader | None:
    """The first reader that the content is for."""
    return next((reader for reader in READERS.values() if reader.matches(head, promise == reader.family_name)), None)


def _build_promise_error(head: bytes, promise: str) -> SampleError:
    if head.startswith(_LFS):
        return SampleError("lfs_pointer", "the file is a Git LFS pointer, not its data; run git lfs pull")
    if head.lstrip().startswith(b"<"):
        return SampleError(
            "error_document", f"the file holds an XML or HTML document, such as a store's error answer, instead of {promise}"
        )
    content = image_format(head)
    found = f"the content is {content}, which is not read" if content else "but the content does not begin as such a file does"
    return SampleError("wrong_format", f"the name promises {promise}, {found}; rename, convert or replace the file")
