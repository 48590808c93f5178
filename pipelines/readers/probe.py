"""One file by its first bytes: which format it is and what its header says, or which format that is not read."""

from __future__ import annotations

from collections.abc import Callable

from crossdim.pipelines.readers import dicom_header as dicom
from crossdim.pipelines.readers import nifti, raster
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.inflate import GZIP_MAGIC, inflate_head, is_cut
from crossdim.pipelines.readers.nifti_header import looks_like_nifti
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.signatures import Unread, image_format, name_of_unread
from crossdim.storage_schema.errors import SampleError

#: Enough for nearly every header; a longer one costs a second request.
HEAD_BYTES = 256 * 1024
#: What names promise, by family of formats.
PROMISES = {
    "picture": (".png", ".jpg", ".jpeg"),
    "nifti": (".nii", ".nii.gz", ".hdr"),
    "dicom": (".dcm", ".dicom", ".ima"),
}
#: Of NIfTI-1, the shorter one.
_NIFTI_HEADER_BYTES = 348
_LFS = b"version https://git-lfs"


def promised_family(name: str) -> str | None:
    """The family of formats that a file's name promises."""
    return next((family for family, endings in PROMISES.items() if name.lower().endswith(endings)), None)


def known_ending(name: str) -> str:
    """The ending of a file's name if it is one that promises a format, in lower case; else empty, for it may be anything."""
    endings = sorted((ending for endings in PROMISES.values() for ending in endings), key=len, reverse=True)
    return next((ending for ending in endings if name.lower().endswith(ending)), "")


def probe(name: str, size: int, read: Callable[[int], bytes], rules: ReadRules) -> HeaderInfo | Unread:
    """The facts of one file, or what it is if neither its name nor its content is of a format that is read.

    Args:
        name: the file's name.
        size: of the file, in bytes.
        read: gives the first n bytes.
        rules: size guards.

    Raises:
        SampleError: for a file that is, or calls itself, one of our formats and breaks a rule of it.
    """
    promise = promised_family(name)
    if size == 0:
        if promise is None:
            return name_of_unread(name, b"")
        raise SampleError("empty", "the file has no bytes; its copy may have failed")
    head = read(min(size, HEAD_BYTES))
    family, facts_of = _family(head, promise)
    if facts_of is None:
        return name_of_unread(name, head)
    if promise and family != promise:
        raise SampleError("wrong_format", f"the name promises {promise}, the content is {family}; rename or replace the file")
    try:
        found = facts_of(head, len(head) == size, rules)
    except EOFError:
        found = facts_of(read(size), True, rules)
    return found or _without_pixels(head)


def _without_pixels(head: bytes) -> Unread:
    """A DICOM object that is no image: an index of other files, a report, a plan."""
    index = dicom.DIRECTORY_CLASS.encode() in head
    return Unread(format="DICOMDIR" if index else "DICOM without pixels", is_image=index)


FactsOf = Callable[[bytes, bool, ReadRules], HeaderInfo | None]


def _family(head: bytes, promise: str | None) -> tuple[str, FactsOf | None]:
    if head.startswith((raster.PNG_MAGIC, raster.JPEG_MAGIC)):
        return "picture", lambda data, _, rules: raster.read_header(data, rules)
    if dicom.looks_like_dicom(head):
        return "dicom", lambda data, whole, rules: dicom.read_header(data, rules, whole=whole)
    if _is_nifti(head, promise):
        return "nifti", lambda data, _, rules: nifti.read_header(data, rules)
    if promise is None:
        return "foreign", None
    raise _broken_promise(head, promise)


def _is_nifti(head: bytes, promise: str | None) -> bool:
    if not head.startswith(GZIP_MAGIC):
        return looks_like_nifti(head)
    try:
        start = inflate_head(head, 540)
        if promise == "nifti" and len(start) < _NIFTI_HEADER_BYTES and is_cut(head):
            told = f"the gzip stream ends after {len(start)} bytes of content, inside the NIfTI header; the file is cut"
            raise SampleError("truncated", told)
        return looks_like_nifti(start)
    except SampleError:
        if promise == "nifti":
            raise
        return False


def _broken_promise(head: bytes, promise: str) -> SampleError:
    if head.startswith(_LFS):
        return SampleError("lfs_pointer", "the file is a Git LFS pointer, not its data; run git lfs pull")
    if head.lstrip().startswith(b"<"):
        return SampleError(
            "error_document", f"the file holds an XML or HTML document, such as a store's error answer, instead of {promise}"
        )
    content = image_format(head)
    found = f"the content is {content}, which is not read" if content else "but the content does not begin as such a file does"
    return SampleError("wrong_format", f"the name promises {promise}, {found}; rename, convert or replace the file")
