"""The input of a decoder: the bytes of one input, and what else is known of it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.errors import SampleError, UsageError, describe_unknown_name
from crossdim.storage_schema.patient import patient_or_content
from crossdim.storage_schema.sample import Origin, Sample
from crossdim.storage_schema.vocabulary import Modality

#: Values that any file may give, however few bytes it has: more than the largest digital mammograms (23 million). Ours.
FREE_VALUES = 1 << 25
#: Values for each byte of the file above that: 0.04 bits for each, below what lossy codecs leave of an image that shows
#: something; a blank one may have fewer. Ours.
MAX_VALUES_PER_BYTE = 200
#: First bytes of a file that are read: enough for nearly every header; a longer one needs a second request.
HEAD_BYTES = 256 * 1024
#: Key of a sample's ``extra`` under which a decoder tells the task of files that it left out; it is never published.
LEFT_OUT = "left_out"
Frames = Literal["first", "refuse"]
BurnedIn = Literal["keep", "refuse"]
GapRule = Literal["longest", "refuse"]
TiltRule = Literal["correct", "refuse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadRules:
    """Limits and choices of the readers. Limits are checked against headers, before anything is allocated.

    Attributes:
        frames: of a 4D NIfTI file, take the ``first`` frame or ``refuse`` it.
        max_bytes (bytes): largest file, and largest decoded input as float32.
        max_pixels (pixels): largest image, times its channels.
        max_not_finite: fraction of infinite voxels that are replaced (NaN is background); with more, the input is refused.
        burned_in: inputs whose header says that text is burned into the pixels: ``keep`` or ``refuse`` them.
        tilt: a DICOM series whose slices are stacked aslant of their normal: ``correct`` it by moving each slice within its
            plane onto a straight grid, or ``refuse`` it.
        gaps: a DICOM series of which slices are missing: keep the ``longest`` run of evenly spaced slices, or ``refuse`` it.
    """

    frames: Frames = "first"  # of a 4D NIfTI; ours: one time point is one anatomy
    max_bytes: int = 4 * 2**30  # of one file, and of one decoded input as float32: 1024^3 voxels; ours
    max_pixels: int = 2**28  # of one image, times its channels; ours, above the largest digital mammograms and radiographs
    max_not_finite: float = 0.1  # share of infinite voxels that are replaced (NaN is background); above, refused; ours

    burned_in: BurnedIn = "keep"  # inputs whose header says that text is burned into the pixels
    tilt: TiltRule = "correct"  # of a series of slices; ours, as dcm2niix does
    gaps: GapRule = "longest"  # in a series of slices; ours: each part of a body is sound by itself

    def __post_init__(self) -> None:
        for name, rule in (("burned_in", BurnedIn), ("frames", Frames), ("tilt", TiltRule), ("gaps", GapRule)):
            if getattr(self, name) not in get_args(rule):
                raise UsageError(describe_unknown_name(f"value of {name}", getattr(self, name), get_args(rule)))

    def allow_file(self, num_bytes: int) -> None:
        """Refuse a file that is too large to be read as a whole.

        Raises:
            SampleError: rule ``too_large``.
        """
        if num_bytes > self.max_bytes:
            raise SampleError(
                "too_large", f"the file has {num_bytes:,} bytes and is read as a whole; the guard stands at {self.max_bytes:,}"
            )

    def allow_bytes(self, num_bytes: int, shape: tuple[int, ...]) -> None:
        """Check the bytes that a header claims, before they are allocated.

        Args:
            num_bytes: of the decoded array.
            shape: that the header states, for the message.

        Raises:
            SampleError: rule ``too_large``.
        """
        if num_bytes > self.max_bytes:
            raise SampleError(
                "too_large", f"the header claims {shape}, {num_bytes:,} bytes; the guard stands at {self.max_bytes:,}"
            )

    def allow_values(self, num_values: int, shape: tuple[int, ...]) -> None:
        """Check the number of values of an image: pixels times channels.

        Args:
            num_values: that the header promises.
            shape: that the header states, for the message.

        Raises:
            SampleError: rule ``too_large``.
        """
        if num_values > self.max_pixels:
            raise SampleError(
                "too_large",
                f"the header claims {shape}, {num_values:,} pixels times channels; read.max_pixels is {self.max_pixels:,}",
            )


def check_expansion(num_values: int, num_bytes: int) -> None:
    """Refuse an input that promises far more pixels than its bytes can hold, before a codec decodes it.

    Args:
        num_values: pixels times channels, or voxels, that the headers promise.
        num_bytes: of the files.

    Raises:
        SampleError: rule ``too_large``.
    """
    if num_values > max(FREE_VALUES, MAX_VALUES_PER_BYTE * num_bytes):
        raise SampleError(
            "too_large",
            f"{num_bytes:,} bytes promise {num_values:,} values; above {FREE_VALUES:,}, at most {MAX_VALUES_PER_BYTE} for each "
            "byte are read; the file is damaged, or shows nothing",
        )


def content_hash(hashes: Iterable[str]) -> str:
    """The hash of an input: of one content its own; of several the hash of their sorted hashes, whatever names and order are.

    Args:
        hashes: hex sha256 of each file; equal files count once.
    """
    different = sorted(set(hashes))
    return different[0] if len(different) == 1 else hashlib.sha256("".join(different).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class RawItem:
    """One input: a file, or all files of a series.

    Attributes:
        uri: name of the input in the catalog.
        files: contents, in no particular order for a series.
        hashes: hex sha256 of each file, if they are known already.
        modality: what command line or folder say; a DICOM header knows better.
        patient: hashed patient, if somebody named one.
        num_values: pixels or voxels that the header promised, which is what memory and time are allowed for.
    """

    uri: str
    files: tuple[bytes, ...]
    hashes: tuple[str, ...] = ()
    modality: Modality = Modality.OT
    label: str | None = None
    patient: str | None = None
    rules: ReadRules = ReadRules()
    num_values: int = 0

    @property
    def data(self) -> bytes:
        """The content of a one-file input."""
        (only,) = self.files
        return only

    def sha256(self) -> str:
        """Hash of the content (see :func:`content_hash`)."""
        return content_hash(self.hashes or (hashlib.sha256(data).hexdigest() for data in self.files))

    def origin(self) -> tuple[str, Origin, str]:
        """Key, origin and patient of the sample that this input becomes; without a known patient, the content stands for one."""
        sha256 = self.sha256()
        origin = Origin(uri=self.uri, sha256=sha256)
        return sample_key(sha256, origin.part), origin, patient_or_content(self.patient, sha256)


@contextlib.contextmanager
def number_files(numbers: Sequence[int]) -> Iterator[None]:
    """Make errors raised inside the ``with`` block, which count files within a selection, count within the whole input."""
    try:
        yield
    except SampleError as error:
        files = tuple(int(numbers[number]) for number in error.files)
        raise SampleError(error.rule, error.reason, files or (tuple(numbers) if len(numbers) == 1 else ())) from error


def add_note(sample: Sample, *notes: str | None) -> Sample:
    """Append notes of a reader to a sample's note.

    Args:
        sample: left as it is.
        *notes: None and empty ones are left out.

    Returns:
        A copy with the notes joined by semicolons.
    """
    texts = [str(sample.extra["note"])] if "note" in sample.extra else []
    texts += [note for note in notes if note]
    return replace(sample, extra={**sample.extra, "note": "; ".join(texts)}) if texts else sample
