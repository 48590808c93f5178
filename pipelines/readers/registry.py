"""All readers. Formats, file suffixes, decoders and what each recipe reads are derived from this one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from crossdim.pipelines.readers import (
    dicom_header,
    dicom_image,
    label_values,
    metaimage,
    nifti,
    nifti_header,
    npy,
    nrrd,
    raster,
    series,
    tiff,
    tiff_volume,
    volume_file,
)
from crossdim.pipelines.readers.reader import Kind, Reader
from crossdim.storage_schema.errors import UsageError

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


def _volume_reader(
    name: str, suffixes: tuple[str, ...], matches: Callable[[bytes, bool], bool], parse: volume_file.ParseHeader
) -> Reader:
    """A reader of volumes that lie in one file each: all but the header is the same for every format."""
    return Reader(
        name=name,
        suffixes=suffixes,
        kind="volume",
        matches=matches,
        read_header=partial(volume_file.read_header, parse, name),
        decode=partial(volume_file.decode, parse),
        label_values=partial(label_values.classify_values, parse),
        shows_gray=partial(label_values.shows_gray, parse),
    )


#: By name, in the order in which they are tried on a file. A new reader is a module and an entry here.
READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            name=raster.PNG,
            family="picture",
            suffixes=(".png",),
            kind="image",
            matches=lambda head, _: head.startswith(raster.PNG_MAGIC),
            read_header=raster.read_header,
            decode=raster.decode,
        ),
        Reader(
            name=raster.JPEG,
            family="picture",
            suffixes=(".jpg", ".jpeg"),
            kind="image",
            matches=lambda head, _: head.startswith(raster.JPEG_MAGIC),
            read_header=raster.read_header,
            decode=raster.decode,
            lossless=False,
        ),
        Reader(
            name=raster.BMP,
            family="picture",
            suffixes=(".bmp", ".dib"),
            kind="image",
            matches=lambda head, _: raster.looks_like_bmp(head),
            read_header=raster.read_header,
            decode=raster.decode,
        ),
        Reader(
            name=raster.WEBP,
            family="picture",
            suffixes=(".webp",),
            kind="image",
            matches=lambda head, _: head.startswith(b"RIFF") and head[8:12] == raster.WEBP_MAGIC,
            read_header=raster.read_header,
            decode=raster.decode,
            lossless=False,
        ),
        Reader(
            name=dicom_header.DICOM,
            suffixes=_DICOM_SUFFIXES,
            kind="image",
            matches=lambda head, _: dicom_header.looks_like_dicom(head),
            read_header=dicom_header.read_header,
            decode=dicom_image.decode,
            named_label_maps=False,  # a segmentation is an object of its own class
        ),
        Reader(  # after DICOM, whose files may begin as TIFF files do (dual personality)
            name=tiff.TIFF,
            suffixes=_TIFF_SUFFIXES,
            kind="image",
            matches=lambda head, _: tiff.matches(head),
            read_header=tiff.read_header,
            decode=tiff.decode,
        ),
        Reader(  # never asked first: the reader before it tells files of several pages by their header
            name=tiff_volume.TIFF_VOLUME,
            family=tiff.TIFF,
            suffixes=_TIFF_SUFFIXES,
            kind="volume",
            matches=lambda head, _: tiff.matches(head),
            read_header=tiff.read_header,
            decode=tiff_volume.decode,
        ),
        _volume_reader(nifti.NIFTI, (".nii", ".nii.gz", ".hdr"), nifti.matches, nifti_header.parse_header),
        _volume_reader(metaimage.METAIMAGE, (".mha", ".mhd"), lambda head, _: metaimage.matches(head), metaimage.parse_header),
        _volume_reader(nrrd.NRRD, (".nrrd", ".nhdr"), lambda head, _: nrrd.matches(head), nrrd.parse_header),
        Reader(
            name=npy.NPY,
            suffixes=(".npy",),
            kind="image",
            matches=lambda head, _: npy.matches_image(head),
            read_header=npy.read_image_header,
            decode=npy.decode_image,
        ),
        Reader(  # after images: what it cannot tell, it refuses
            name=npy.NPY_VOLUME,
            family=npy.NPY,
            suffixes=(".npy",),
            kind="volume",
            matches=lambda head, _: npy.matches_any(head),
            read_header=partial(volume_file.read_header, npy.parse_volume_header, npy.NPY_VOLUME),
            decode=partial(volume_file.decode, npy.parse_volume_header),
            label_values=partial(label_values.classify_values, npy.parse_volume_header),
            shows_gray=partial(label_values.shows_gray, npy.parse_volume_header),
        ),
        Reader(
            name="dicom-series",
            format=dicom_header.DICOM,
            suffixes=_DICOM_SUFFIXES,
            kind="volume",
            grouping="series",
            matches=lambda head, _: dicom_header.looks_like_dicom(head),
            read_header=dicom_header.read_header,
            decode=series.decode,
            accepts=lambda header: header.affine is None,
            named_label_maps=False,
        ),
        Reader(
            name="dicom-frames",
            format=dicom_header.DICOM,
            suffixes=_DICOM_SUFFIXES,
            kind="volume",
            matches=lambda head, _: dicom_header.looks_like_dicom(head),
            read_header=dicom_header.read_header,
            decode=series.decode_frames,
            accepts=lambda header: header.affine is not None,
            named_label_maps=False,
        ),
    )
}


def register_readers(readers: Iterable[Reader]) -> None:
    """Add readers after those that are there; one that is registered already is skipped.

    Args:
        readers: of another package.

    Raises:
        UsageError: for another reader under a name that is taken.
    """
    for reader in readers:
        if READERS.setdefault(reader.name, reader) is not reader:
            raise UsageError(f"there are two readers named {reader.name!r}; give the new one another name")


def readers_of(kind: Kind) -> list[Reader]:
    """All readers whose inputs become images, or volumes."""
    return [reader for reader in READERS.values() if reader.kind == kind]


def formats_of(kind: Kind) -> frozenset[str]:
    """The formats that recipes of images, or of volumes, read."""
    return frozenset(reader.format_name for reader in readers_of(kind))


def families_of(kind: Kind) -> frozenset[str]:
    """The families of these formats: what names of such files promise."""
    return frozenset(reader.family_name for reader in readers_of(kind))


def reader_of_format(name: str) -> Reader:
    """The first reader of a format."""
    return next(reader for reader in READERS.values() if reader.format_name == name)


def reader_of_path(path: str) -> Reader | None:
    """The first reader whose format a file's name promises; None if the name promises nothing."""
    lower = path.lower()
    return next((reader for reader in READERS.values() if lower.endswith(reader.suffixes)), None)


def promised_family(path: str) -> str | None:
    """The family of formats that a file's name promises."""
    reader = reader_of_path(path)
    return reader.family_name if reader else None


def known_ending(path: str) -> str:
    """The ending of a file's name if it is one that promises a format, in lower case; else empty, for it may be anything."""
    endings = sorted({ending for reader in READERS.values() for ending in reader.suffixes}, key=len, reverse=True)
    return next((ending for ending in endings if path.lower().endswith(ending)), "")
