"""What tells that a source holds patients' data, and what tells one patient from another."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import cli
from pipelines.cli import main
from pipelines.jobs import label_maps, prepare, scan
from tests.pipelines.corpora import picture
from tests.pipelines.dicom_files import dicom_bytes

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
PIXELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """The same work in this process: what is published does not depend on who does it."""
    for module in (scan, prepare, label_maps):
        monkeypatch.setattr(module, "each", lambda documents, work, **_: map(work, documents))
    monkeypatch.setattr(cli, "ray_session", lambda *_, **__: nullcontext())


def rows(dataset: Path, table: str) -> list[dict]:
    return pq.read_table(dataset / table).to_pylist()


NO_IMAGE = {"Rows": None, "Columns": None, "PixelData": None}
#: Files whose content is DICOM, none of which becomes an input; by name.
NOT_USED = {
    "IM0001": dicom_bytes(PIXELS, SOPClassUID=BASIC_TEXT_SR, Modality="SR", **NO_IMAGE),
    "DICOMDIR": dicom_bytes(PIXELS, SOPClassUID="1.2.840.10008.1.3.10", **NO_IMAGE),
    "IM0002": dicom_bytes(PIXELS, PixelData=None),
    "IM0003": dicom_bytes(PIXELS)[:300],
    "IM0004": dicom_bytes(PIXELS, BitsAllocated=("LO", "many")),
    "scan.png": dicom_bytes(PIXELS),
    "dicomdir": b"",
    "notes.txt": dicom_bytes(PIXELS, **NO_IMAGE),
    "IM0005": dicom_bytes(PIXELS)[132:],
}


@pytest.mark.parametrize("name", NOT_USED)
def test_a_dicom_object_that_is_not_used_hashes_the_names_of_its_source_too(tmp_path, name):
    """A report or a damaged export lies in a folder that is called after its patient, as the pictures beside it do."""
    folder = tmp_path / "raw" / "DOE_JANE_19610203"
    folder.mkdir(parents=True)
    Image.fromarray(picture(1)).save(folder / "1.png")
    (folder / name).write_bytes(NOT_USED[name])

    assert main(["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out")]) in (0, 3)
    published = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert published
    assert not any(b"DOE_JANE" in path.read_bytes() for path in published)
    assert all(row["source_uri"].startswith("hashed:") for row in rows(tmp_path / "out", "catalog"))
