"""TIFF files of several pages as volumes: a page is a slice, the first one lowest in number along z.

Voxel sizes are read from OME-XML and from ImageJ's tags; nothing states where the volume lies in a patient. What pages are is
taken from there, too: channels and times are no slices, and are refused. The XML is searched for the attributes of its element
Pixels, and not parsed: it may name other files and define entities.
"""

from __future__ import annotations

import math
import re

import numpy as np
import tifffile

from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.tiff_pages import GRAY, check_segments, find_pages, open_tiff, read_pixels
from crossdim.pipelines.readers.volume_file import build_volume
from crossdim.pipelines.readers.volume_header import NO_PLACE_NOTE, VolumeHeader, build_lps_affine
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

#: Name of the format.
TIFF_VOLUME = "tiff volume"
NO_ORIENTATION_NOTE = "no orientation in the file, taken as LPS with pages along z"
#: Millimetres of the units that OME-XML and ImageJ name; micrometres are OME's default.
UNITS_MM = {
    "nm": 1e-6,
    "µm": 1e-3,
    "μm": 1e-3,
    "um": 1e-3,
    "\\u00b5m": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "inch": 25.4,
    "m": 1000.0,
}
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
_ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_TIFF_DATA = re.compile(r"<(?:\w+:)?TiffData\b([^>]*)>")
#: Voxel sizes along (x, y, z) in mm, None where the file does not tell.
Sizes = tuple[float | None, float | None, float | None]


def is_volume(file: tifffile.TiffFile) -> bool:
    """Whether a file has more pages than an image."""
    return len(find_pages(file)) > 1 or _count_imagej_slices(file) > 1


def parse_volume(file: tifffile.TiffFile, rules: ReadRules) -> VolumeHeader:
    """Check the pages of a file, and read what they are.

    Args:
        file: with several pages.
        rules: size guards.

    Returns:
        Shape, numbers, and the voxel size where the file states one.

    Raises:
        SampleError: rule ``multi_frame`` if the pages are no slices of one grey volume, ``pixel_mode``, ``spacing`` or
            ``too_large``.
    """
    pages = find_pages(file)
    first = pages[0]
    if len(pages) < _count_imagej_slices(file):
        raise SampleError(
            "multi_frame", f"ImageJ wrote {_count_imagej_slices(file)} slices behind {len(pages)} page; save them as pages"
        )
    _check_pages(pages)
    sizes_mm = _read_ome(file, len(pages)) if file.is_ome else _read_imagej(file, len(pages))
    spacing_xyz, notes = _complete(sizes_mm)
    header = VolumeHeader(
        shape_xyz=(first.imagewidth, first.imagelength, len(pages)),
        dtype=np.dtype(first.dtype),
        affine_xyz=build_lps_affine((2, 1, 0), spacing_xyz),
        notes=notes,
    )
    header.allow(rules)
    return header


def decode(item: RawItem) -> Sample:
    """Decode a file to a volume, page by page; white-is-zero is inverted.

    Args:
        item: the file.

    Returns:
        (1, D, H, W) float32.

    Raises:
        SampleError: for damaged or cut content, or one of :func:`parse_volume`.
    """
    with open_tiff(item.data) as file:
        header, pages = parse_volume(file, item.rules), find_pages(file)
        for page in pages:
            check_segments(page, len(item.data))
        volume_DHW = np.empty((len(pages), pages[0].imagelength, pages[0].imagewidth), np.float32)
        for slice_HW, page in zip(volume_DHW, pages, strict=True):
            slice_HW[:] = read_pixels(page)[:, :, 0]
        if pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            np.subtract((1 << pages[0].bitspersample) - 1, volume_DHW, out=volume_DHW)
    return build_volume(item, volume_DHW, header)


def _check_pages(pages: list[tifffile.TiffPage]) -> None:
    first = pages[0]
    alike = {(p.imagelength, p.imagewidth, p.samplesperpixel, p.dtype, p.photometric) for p in pages}
    if len(alike) > 1:
        sizes = sorted({f"{p.imagewidth}x{p.imagelength}" for p in pages})
        raise SampleError(
            "multi_frame",
            f"{len(pages)} pages of different sizes or kinds ({', '.join(sizes)}) are no volume; save each as a file",
        )
    if min(first.imagelength, first.imagewidth) < 1:
        raise SampleError(
            "dimensions", f"the header says {first.imagewidth}x{first.imagelength} pixels; a slice has at least one"
        )
    is_number = first.dtype is not None and first.dtype.kind in "uif" and first.bitspersample in (8, 16, 32, 64)
    inverts = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE and first.dtype is not None and first.dtype.kind != "u"
    if first.samplesperpixel != 1 or first.photometric not in GRAY or not is_number or inverts:
        raise SampleError(
            "pixel_mode", "pages of a volume are grey numbers of 8 to 64 bits; save colour pages as files of their own"
        )


def _read_ome(file: tifffile.TiffFile, num_pages: int) -> Sizes:
    """Voxel sizes of OME-XML; its pages must be slices in their order."""
    text = file.ome_metadata or ""
    found = [_attributes(one) for one in _PIXELS.findall(text)]
    if len(found) != 1:
        raise SampleError("multi_frame", f"the OME-XML describes {len(found)} images; save each as a file")
    [pixels] = found
    counts = {name: int(pixels.get(f"Size{name}", "1")) for name in "ZCT"}
    if counts["Z"] != num_pages or counts["C"] * counts["T"] != 1:
        said = ", ".join(f"Size{name} {count}" for name, count in counts.items())
        raise SampleError(
            "multi_frame", f"{num_pages} pages are not the slices of one volume by the OME-XML ({said}); save each as one"
        )
    places = [_attributes(one) for one in _TIFF_DATA.findall(text)]
    if len(places) > 1 and any(place.get("FirstZ", "0") != place.get("IFD", "0") for place in places):
        raise SampleError("multi_frame", "by the OME-XML pages are not stored in the order of slices; save them in order")

    def size_of(axis: str) -> float | None:
        value = pixels.get(f"PhysicalSize{axis}")
        return None if value is None else float(value) * _unit_mm(pixels.get(f"PhysicalSize{axis}Unit", "µm"))

    return size_of("X"), size_of("Y"), size_of("Z")


def _attributes(text: str) -> dict[str, str]:
    return {name: double or single for name, double, single in _ATTRIBUTE.findall(text)}


def _unit_mm(unit: str) -> float:
    if (scale := UNITS_MM.get(unit.lower())) is None:
        raise SampleError("spacing", f"voxel sizes are in {unit[:20]!r}; known are {', '.join(sorted(set(UNITS_MM)))}")
    return scale


def _read_imagej(file: tifffile.TiffFile, num_pages: int) -> Sizes:
    """Voxel sizes of ImageJ; none of other programs', whose resolution is that of paper."""
    stated = file.imagej_metadata or {}
    counts = {name: int(stated.get(name, 1)) for name in ("channels", "frames")}
    if math.prod(counts.values()) != 1:
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise SampleError(
            "multi_frame", f"{num_pages} pages are not the slices of one volume by ImageJ ({said}); save each as one"
        )
    if "unit" not in stated:
        return None, None, None
    scale, page = _unit_mm(str(stated["unit"])), file.pages[0].aspage()

    def size_of(tag: str) -> float | None:
        numerator, denominator = page.tags[tag].value if tag in page.tags else (0, 1)
        return scale * denominator / numerator if numerator else None

    spacing = stated.get("spacing")
    return size_of("XResolution"), size_of("YResolution"), None if spacing is None else float(spacing) * scale


def _count_imagej_slices(file: tifffile.TiffFile) -> int:
    """ImageJ writes large stacks behind one page."""
    return int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1


def _complete(sizes_mm: Sizes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxel sizes along (x, y, z), mm, and what had to be assumed."""
    if all(size is None for size in sizes_mm):
        return np.ones(3), (NO_PLACE_NOTE,)
    unknown = [axis for axis, size in zip("xyz", sizes_mm, strict=True) if size is None]
    if unknown:
        raise SampleError("spacing", f"the voxel size is stated, but not along {' and '.join(unknown)}; state all three, or none")
    spacing = np.array(sizes_mm, float)
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise SampleError("spacing", f"the voxel size is {', '.join(f'{size:g}' for size in spacing)} mm; expected above 0")
    return spacing, (NO_ORIENTATION_NOTE,)
