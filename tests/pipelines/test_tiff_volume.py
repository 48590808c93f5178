"""TIFF files of several pages: written by tifffile and by ITK, read back by ITK, and refused where pages are no slices."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.readers import tiff, tiff_volume
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import Modality

VOLUME = np.random.default_rng(0).integers(0, 60_000, (5, 7, 9), np.uint16)


def written(array: np.ndarray, **how: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **{"photometric": "minisblack", "metadata": None} | how)
    return stream.getvalue()


def header_of(data: bytes) -> Any:
    return tiff.read_header(data, ReadRules(), whole=True)


def decoded(data: bytes) -> Any:
    return tiff_volume.decode(RawItem(uri="a.tif", files=(data,), modality=Modality.OT))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("how", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_pages_are_the_slices_of_a_volume(kind: str, how: dict[str, Any]) -> None:
    array = (VOLUME.astype(np.float64) / 300 - (0 if kind.startswith("u") else 90)).astype(kind)
    data = written(array, **how)
    header, sample = header_of(data), decoded(data)
    assert (header.format, header.shape, header.spacing_mm) == ("tiff volume", (5, 7, 9), (1, 1, 1))
    assert np.array_equal(sample.array, array[None].astype(np.float32))
    assert "taken as 1 mm" in sample.extra["note"]


def test_what_itk_writes_is_what_itk_reads(tmp_path: Path) -> None:
    """Its resolution tag is that of paper, and no voxel size."""
    image = SimpleITK.GetImageFromArray(VOLUME)
    image.SetSpacing((0.5, 0.5, 2))
    SimpleITK.WriteImage(image, str(tmp_path / "a.tif"))
    sample = decoded((tmp_path / "a.tif").read_bytes())
    assert np.array_equal(sample.array[0], SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.tif"))))
    assert sample.spacing_mm == (1, 1, 1)


OME = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 600, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 2}


@pytest.mark.parametrize("big", [False, True])
def test_the_voxel_size_of_ome_xml_is_kept_in_its_units(big: bool) -> None:
    """Micrometres where no unit stands."""
    data = written(VOLUME, ome=True, bigtiff=big, metadata=OME | {"PhysicalSizeZUnit": "mm"})
    assert header_of(data).spacing_mm == (2, 0.0006, 0.0005)
    sample = decoded(data)
    assert sample.spacing_mm == (2, 0.0006, 0.0005)
    assert "no orientation in the file" in sample.extra["note"]
    assert np.allclose(np.abs(np.array(sample.affine)[:3, :3]).sum(axis=0), (2, 0.0006, 0.0005))


def test_the_voxel_size_of_imagej_is_kept() -> None:
    data = written(VOLUME, imagej=True, resolution=(4, 2), metadata={"axes": "ZYX", "spacing": 3.0, "unit": "mm"})
    assert header_of(data).spacing_mm == (3, 0.5, 0.25)
    assert np.array_equal(decoded(data).array[0], VOLUME)
    plain = written(VOLUME, imagej=True, metadata={"axes": "ZYX"})
    assert header_of(plain).spacing_mm == (1, 1, 1)


def test_white_is_zero_is_inverted() -> None:
    sample = decoded(written(VOLUME.astype(np.uint8), photometric="miniswhite"))
    assert np.array_equal(sample.array[0], 255.0 - VOLUME.astype(np.uint8))


@pytest.mark.parametrize(
    ("data", "rule", "reason"),
    [
        (written(VOLUME, imagej=True, metadata={"axes": "TYX"}), "multi_frame", "5 frames"),
        (written(VOLUME, imagej=True, metadata={"axes": "CYX"}), "multi_frame", "5 channels"),
        (written(VOLUME, ome=True, metadata={"axes": "TYX"}), "multi_frame", "SizeT 5"),
        (written(VOLUME, ome=True, metadata={"axes": "CYX"}), "multi_frame", "SizeC 5"),
        (written(VOLUME, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 1}), "spacing", "not along y and z"),
        (written(VOLUME, ome=True, metadata=OME | {"PhysicalSizeZUnit": "ly"}), "spacing", "'ly'"),
        (written(VOLUME, ome=True, metadata=OME | {"PhysicalSizeZ": -1}), "spacing", "expected above 0"),
        (written(np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb"), "pixel_mode", "colour"),
        (written(VOLUME.astype(np.complex64)), "pixel_mode", "grey numbers"),
    ],
    ids=["times", "channels", "OME times", "OME channels", "a size in part", "a unit", "a size", "colour", "complex"],
)
def test_pages_that_are_no_slices_are_refused(data: bytes, rule: str, reason: str) -> None:
    with pytest.raises(SampleError, match=reason) as refused:
        header_of(data)
    assert refused.value.rule == rule


def test_pages_of_different_sizes_are_refused() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for side in (8, 9):
            writer.write(np.zeros((side, side), np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(SampleError, match="8x8, 9x9"):
        header_of(stream.getvalue())


def test_slices_that_imagej_wrote_behind_one_page_are_not_lost() -> None:
    """As it does beyond 4 GB: only the first of them would be seen."""
    description = "ImageJ=1.53\nimages=5\nslices=5\n"
    data = written(VOLUME[:1], description=description, software=None)
    with pytest.raises(SampleError, match="5 slices behind 1 page"):
        header_of(data)


def test_files_that_the_xml_names_are_not_opened_and_entities_not_expanded() -> None:
    text = (
        '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
        '<OME><Image><Pixels SizeZ="5" SizeC="1" SizeT="1">'
        '<TiffData IFD="0" PlaneCount="5"><UUID FileName="../../etc/passwd">&b;</UUID></TiffData></Pixels></Image></OME>'
    )
    assert np.array_equal(decoded(written(VOLUME, description=text)).array[0], VOLUME)


@given(cut=st.floats(0.02, 0.98), big=st.booleans())
def test_a_cut_file_is_refused_by_rule(cut: float, big: bool) -> None:
    """Also where only pages behind the cut are lost, whose number no header states."""
    data = written(VOLUME, bigtiff=big)
    with pytest.raises(SampleError) as refused:
        decoded(data[: int(len(data) * cut)])
    assert refused.value.rule in ("truncated", "damaged")


def test_a_page_that_leads_back_to_an_earlier_one_is_refused() -> None:
    data = bytearray(written(VOLUME[:2]))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + entries * 12 : first + 6 + entries * 12] = data[4:8]
    with pytest.raises(SampleError, match="page 2 of the TIFF file is one of the pages before it"):
        header_of(bytes(data))


def test_too_many_voxels_are_refused_before_any_is_allocated() -> None:
    with pytest.raises(SampleError) as refused:
        tiff.read_header(written(VOLUME), ReadRules(max_bytes=1000), whole=True)
    assert refused.value.rule == "too_large"
