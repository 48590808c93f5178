"""The interface of a reader for one file format. See "To add" in the README of pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.signatures import Unread
from crossdim.storage_schema.sample import Sample

#: What one input of a reader becomes: an image (C, H, W) or a volume (1, D, H, W).
Kind = Literal["image", "volume"]
#: What one input is: every file by itself, or all files of one series (study, series and patient of their headers).
Grouping = Literal["file", "series"]


class ReadHeader(Protocol):
    """Reads the header of a file."""

    def __call__(self, data: bytes, rules: ReadRules, *, whole: bool) -> HeaderInfo | Unread:
        """What the header says, or what the file is if it holds no image.

        Args:
            data: the file, or its first :data:`~crossdim.pipelines.readers.probe.HEAD_BYTES` bytes.
            rules: size guards, to be asked before anything is allocated.
            whole: whether ``data`` is all of the file.

        Raises:
            SampleError: naming the rule that the header breaks.
            EOFError: if ``data`` is a beginning and the header goes on behind it; it is called again with the whole file.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """One way to read one file format.

    Attributes:
        name: by which plans name it; no two readers share one.
        suffixes: ends of file names that promise this format, in lower case, with their dot. A file that is named so and holds
            something else is refused.
        kind: what an input becomes; recipes of images use all readers of images, recipes of volumes all readers of volumes.
        matches: whether the first bytes of a file are of this format; the second argument is whether the file's name promises
            it. Readers are asked in the order of ``READERS``.
        read_header: what the header says, without the pixels.
        decode: an input to its sample: (C, H, W) of uint8 or uint16, or (1, D, H, W) of float32 in physical units. It runs in the
            decoder process, where its memory and time are bounded by what the header promised.
        format: as ``HeaderInfo.format`` and tables name it; by default the name. Two readers may read one format, as an image
            and as a volume.
        family: of formats that may carry each other's suffixes, such as PNG and JPEG; by default the format.
        grouping: what one input is.
        accepts: whether it is for a file of its format, by the header; where two readers read one format as volumes.
        lossless: whether the numbers of a label map survive in this format.
        named_label_maps: whether a file can be a label map by its name; not so where the header says it.
        label_values: tells labels from grey values by a volume's voxels; None where nobody can, and names decide alone.
        shows_gray: whether the voxels of a volume that is named as a label map are grey values; None where nobody can tell. Of
            readers of images, the decoded pixels tell.
    """

    name: str
    suffixes: tuple[str, ...]
    kind: Kind
    matches: Callable[[bytes, bool], bool]
    read_header: ReadHeader
    decode: Callable[[RawItem], Sample]
    format: str = ""
    family: str = ""
    grouping: Grouping = "file"
    accepts: Callable[[HeaderInfo], bool] = lambda _: True
    lossless: bool = True
    named_label_maps: bool = True
    label_values: Callable[[bytes, ReadRules], Values] | None = None
    shows_gray: Callable[[bytes, ReadRules], bool] | None = None

    @property
    def format_name(self) -> str:
        """The format, as tables name it."""
        return self.format or self.name

    @property
    def family_name(self) -> str:
        """What a file's name promises."""
        return self.family or self.format_name
