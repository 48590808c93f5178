"""Files that are no inputs: litter by its name, other formats by their content, and each of them said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
)

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.scan import scan_file
from crossdim.pipelines.jobs.unread import UnreadFormat, count_unread_formats, describe_unread
from crossdim.pipelines.readers import dicom_header
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.signatures import IMAGES, OTHERS, Unread, identify_unread
from crossdim.pipelines.sources.ignored_names import FILES, FOLDERS, PREFIXES, SUFFIXES, match_ignored_name
from crossdim.pipelines.sources.listing import SourceFile, list_sources
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.corpora import blob, picture, write_series
from tests.pipelines.dicom_files import dicom_bytes, dicom_dataset

PIXELS = picture(1)
VOXELS_XYZ = blob((6, 7, 8), 1)


@pytest.mark.parametrize(
    "path",
    [
        "._a.png",
        "x/._IM0001",
        "__MACOSX/x/a.png",
        "x/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
        "Thumbs.db",
        "x/THUMBS.DB",
        "desktop.ini",
        "Icon\r",
        "$RECYCLE.BIN/a.png",
        "lost+found/#1234",
        "notes.txt~",
        "a.png~",
        "#a.py#",
        ".#a.py",
        "~$report.docx",
        ".~lock.table.csv#",
        "a.dcm.part",
        ".a.swp",
        ".nfs000000001",
        "__pycache__/a.pyc",
    ],
)
def test_what_systems_and_editors_leave_is_litter(path):
    assert match_ignored_name(path) == "litter"


@pytest.mark.parametrize(
    "path",
    [
        ".DS_Store",
        ".git/objects/ab/cd",
        "x/.ipynb_checkpoints/a.png",
        ".snakemake/log/a",
        ".Trashes/a.dcm",
        ".gitignore",
        "a/.b/c.nii",
    ],
)
def test_hidden_folders_and_hidden_files_are_ignored(path):
    assert match_ignored_name(path) == "hidden"


@pytest.mark.parametrize(
    "path",
    [
        ".hidden.png",
        "sub/./dot.png",
        "~tilde.png",
        "trail .png",
        "a.part.png",
        "macosx/a.png",
        "#1.dcm",
        "IM0001",
        ".x.nii.gz",
        "eaDir/b",
    ],
)
def test_images_with_odd_names_are_looked_at(path):
    """A leading dot or tilde is somebody's way to name images."""
    assert match_ignored_name(path) is None


@given(
    st.lists(st.text(alphabet="abcXYZ019 -_", min_size=1), min_size=1, max_size=4),
    st.sampled_from([".png", ".nii.gz", ".dcm", ""]),
)
def test_no_plain_name_is_litter(parts, ending):
    path = "/".join(parts) + ending
    plain = not any(part.lower() in FOLDERS | FILES or part.lower().endswith(SUFFIXES) for part in parts)

    assert not plain or match_ignored_name(path) is None


def test_every_word_of_the_tables_is_used():
    """A word in upper case would never be met."""
    assert all(word == word.lower() for word in (*FILES, *FOLDERS, *PREFIXES, *SUFFIXES))
    endings = [ending for one in IMAGES for ending in one.suffixes] + [
        ending for several in OTHERS.values() for ending in several
    ]
    assert all(ending == ending.lower() for ending in endings)
    assert len({one.name for one in IMAGES}) == len(IMAGES)


def _pillow(kind: str) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(PIXELS).save(path, format=kind)


def _itk(path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS_XYZ), str(path))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a.svs": ("SVS", _pillow("TIFF")),
    "a.gif": ("GIF", _pillow("GIF")),
    "a.jp2": ("JPEG 2000", _pillow("JPEG2000")),
    "a.pgm": ("PNM", _pillow("PPM")),
    "a.vtk": ("VTK", _itk),
    "a.npz": ("NumPy archive", lambda path: np.savez(path, PIXELS)),
    "a.mgz": ("FreeSurfer MGH", lambda path: nibabel.MGHImage(VOXELS_XYZ.astype(np.float32), np.eye(4)).to_filename(path)),
    "a.zip": ("zip archive", _zip),
    "a.tar": ("tar archive", _tar),
    "a.tar.gz": ("tar archive", lambda path: path.write_bytes(gzip.compress(b"x"))),
    "a.dcm.gz": ("gzip file", lambda path: path.write_bytes(gzip.compress(b"x"))),
    "a.nii.bz2": ("bzip2 file", lambda path: path.write_bytes(bz2.compress(b"x"))),
    "a.nii.xz": ("xz file", lambda path: path.write_bytes(lzma.compress(b"x"))),
}  # fmt: skip
UNSEEN_WITHOUT_NAME = ("a.svs", "a.npz", "a.mgz", "a.tar.gz")  # nothing but the name tells them from others


def _looked_at(path: Path, name: str) -> object:
    data = path.read_bytes()
    return probe(name, len(data), lambda count: data[:count], ReadRules())


@pytest.mark.parametrize("name", WRITERS)
def test_formats_that_are_not_read_are_named_by_what_other_libraries_write(name, tmp_path):
    kind, write = WRITERS[name]
    write(tmp_path / name)

    assert _looked_at(tmp_path / name, name) == Unread(format=kind, is_image=True)
    assert _looked_at(tmp_path / name, name.upper()) == Unread(format=kind, is_image=True)
    if name not in UNSEEN_WITHOUT_NAME:
        assert _looked_at(tmp_path / name, "scan001") == Unread(format=kind, is_image=True)


@pytest.mark.parametrize("name", ["a.gif", "a.pgm", "a.vtk"])
def test_a_name_that_promises_another_format_is_refused_with_the_format_that_was_found(name, tmp_path):
    kind, write = WRITERS[name]
    write(tmp_path / name)

    with pytest.raises(SampleError, match=f"the content is {kind}") as caught:
        _looked_at(tmp_path / name, "a.png")
    assert caught.value.rule == "wrong_format"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("labels.csv", b"path,label\n", "csv"),
        ("a.json", b"{}", "json"),
        ("README", b"words", "text"),
        ("report.docx", b"PK\x03\x04....", "document"),
        ("dwi.bval", b"0 1000", "gradient table"),
        ("a.Mueller", b"words", "text"),
        ("a.Mueller", b"\0\1\2\3", "unknown"),
        ("a.csv", b"", "csv"),
        ("nothing", b"", "empty"),
        ("BM_list", b"BM is no bitmap, this is a text", "text"),
    ],
)
def test_what_holds_no_images_is_counted_under_a_name_of_ours(name, content, kind):
    """A suffix may be a name of a person: only those of the table are told."""
    assert identify_unread(name, content) == Unread(format=kind, is_image=False)


def test_dicom_objects_without_images_are_no_images_and_an_index_is_said(tmp_path):
    write_series(tmp_path / "s", blob((1, 8, 8), 1), "1.2.3")
    dataset = pydicom.dcmread(next((tmp_path / "s").iterdir()))
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    dataset.save_as(tmp_path / "report.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    dataset.save_as(tmp_path / "DICOMDIR")

    assert _looked_at(tmp_path / "report.dcm", "report.dcm") == Unread(format="DICOM without pixels", is_image=False)
    assert _looked_at(tmp_path / "DICOMDIR", "DICOMDIR") == Unread(format="DICOMDIR", is_image=True)


@pytest.mark.parametrize("behind", [b"", b"\0" * 3])
@pytest.mark.parametrize("sop_class", [BasicTextSRStorage, RTStructureSetStorage, GrayscaleSoftcopyPresentationStateStorage])
def test_dicom_objects_that_never_have_pixels_are_ignored_also_with_bytes_behind_them(sop_class, behind):
    data = dicom_bytes(np.ones((4, 4), np.uint16), SOPClassUID=sop_class, PixelData=None, Rows=None, Columns=None)

    assert isinstance(dicom_header.read_header(data + behind, ReadRules()), Unread)


def test_a_private_object_without_pixels_is_ignored_and_a_cut_one_is_not():
    tags = {"SOPClassUID": "1.3.12.2.1107.5.9.1", "PixelData": None, "Rows": None, "Columns": None}
    data = dicom_bytes(np.ones((4, 4), np.uint16), **tags)

    assert isinstance(dicom_header.read_header(data, ReadRules()), Unread)
    with pytest.raises(SampleError, match="truncated"):
        dicom_header.read_header(data[:-1], ReadRules())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("sop_class", [CTImageStorage, DigitalXRayImageStorageForPresentation, SegmentationStorage, None])
def test_a_dicom_image_cut_anywhere_before_its_pixels_is_refused(sop_class, syntax):
    dataset = dicom_dataset(np.ones((4, 4), np.uint16), SOPClassUID=sop_class, PatientName="X^Y", StudyDescription="A" * 60)
    dataset.file_meta.TransferSyntaxUID = syntax
    if sop_class is None:
        del dataset.file_meta.MediaStorageSOPClassUID
    else:
        dataset.file_meta.MediaStorageSOPClassUID = sop_class
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, overwrite=True)
    data = buffer.getvalue()
    pixels = data.index(b"\xe0\x7f\x10\0")
    rules = set()
    for end in range(132, pixels + 8):
        with pytest.raises(SampleError) as caught:
            dicom_header.read_header(data[:end], ReadRules())
        rules.add(caught.value.rule)

    assert rules <= {"truncated", "no_pixels", "damaged"}
    assert {"truncated", "no_pixels"} <= rules


def test_images_that_are_not_read_are_said_by_name(tmp_path):
    for number in range(3):
        _pillow("GIF")(tmp_path / f"{number}.gif")
    _itk(tmp_path / "v.vtk")
    (tmp_path / "labels.csv").write_text("path\n")
    sources, files = list_sources([Bucket(str(tmp_path))])
    unread = count_unread_formats([scan_file(file, sources, ReadRules()) for file in files])

    assert describe_unread(unread) == (
        "4 files look like images or may hold some, of formats that this version does not read: "
        "GIF 3 (such as 0.gif), VTK 1 (such as v.vtk)"
    )


@pytest.mark.parametrize(("name", "status", "rule"), [("a.png", "refused", "dangling_link"), (".#a.png", "ignored", "litter")])
def test_what_the_listing_cannot_reach_is_refused_unless_it_is_litter(name, status, rule):
    """Emacs locks a file by a link to nowhere."""
    file = SourceFile(source=0, path=name, uri=name, size=0, problem="dangling_link")
    result = scan_file(file, [Bucket("/nowhere")], ReadRules())

    assert (result.status, result.rule) == (status, rule)


def test_a_name_cannot_move_the_cursor_of_a_terminal():
    unread = {"TIFF": UnreadFormat(num_files=1, example="\x1b[2J\nnext: rm.tif")}

    assert describe_unread(unread).isprintable()
