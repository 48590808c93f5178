"""A preview shows the pixels that a damaged file holds, and technical numbers alone; values are those of the source."""

from __future__ import annotations

import base64
import gzip
import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines import decoder_process
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.preview import PREVIEW_SIDE, read_preview, shrink
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.readers.series_facts import describe_series
from crossdim.pipelines.readers.source_values import BINS, SourceValues, count_source_values
from crossdim.pipelines.scratch import parse_checked
from crossdim.pipelines.show import previews
from crossdim.pipelines.show.histograms import rebin
from crossdim.pipelines.show.page import PAGE, build_page
from crossdim.pipelines.show.preview_record import PREVIEWS
from crossdim.pipelines.show.summary import read_tables
from crossdim.pipelines.sources.reading import read_head
from tests.pipelines.corpora import blob, nifti_bytes, picture, write_volumes
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, series_bytes
from tests.pipelines.identified import BROKEN_TAGS, PLANTED_TAGS, needles, slice_of
from tests.pipelines.refusals import write_refusals

VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", "--local", "--json")


def png_bytes(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def stretched(pixels: np.ndarray) -> np.ndarray:
    low, high = np.percentile(pixels, [1, 99])
    return np.clip((pixels - low) / (high - low), 0, 1) * 255


def test_a_cut_picture_shows_the_rows_that_it_holds() -> None:
    pixels = picture(5)
    data = png_bytes(pixels)
    found = read_preview(data[: len(data) // 2])
    assert found.fields == {"size": "50 x 62", "pixels": "L", "bits": "8"}
    assert found.picture is not None
    same = (found.picture == pixels).all(axis=1)
    assert same[:15].all()
    assert not found.picture[-1].any()


def test_a_slice_is_drawn_as_it_is_meant_to_be_shown() -> None:
    pixels = np.arange(40 * 30, dtype=np.int16).reshape(40, 30) - 500
    shown = read_preview(dicom_bytes(pixels)).picture
    assert shown is not None
    assert np.abs(shown - stretched(pixels)).max() <= 1
    inverted = read_preview(dicom_bytes(pixels, PhotometricInterpretation="MONOCHROME1")).picture
    assert inverted is not None
    assert np.abs((255.0 - inverted) - shown).max() <= 1


def test_a_cut_slice_is_black_where_pixels_are_missing() -> None:
    data = dicom_bytes(picture(6, 60, 50))
    shown = read_preview(data[:-1500]).picture
    assert shown is not None
    assert np.array_equal(shown[:30], picture(6, 60, 50)[:30])
    assert not shown[30:].any()


def test_of_many_frames_the_middle_one_is_drawn() -> None:
    frames = np.stack([np.full((20, 20), level, np.uint8) for level in (10, 20, 30)])
    data = dicom_bytes(frames[0], NumberOfFrames=3, PixelData=frames.tobytes())
    shown = read_preview(data)
    assert shown.fields["NumberOfFrames"] == "3"
    assert shown.picture is not None
    assert (shown.picture == 20).all()


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_is_drawn_in_colour(planar: int) -> None:
    rgb = np.stack([picture(seed, 20, 24) for seed in range(3)], axis=2)
    data = rgb.transpose(2, 0, 1).tobytes() if planar else rgb.tobytes()
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": planar, "PixelData": data}
    shown = read_preview(dicom_bytes(rgb[..., 0], **tags)).picture
    assert np.array_equal(shown, rgb)


@pytest.mark.parametrize("tags", [{"BurnedInAnnotation": "YES"}, {"SOPClassUID": SecondaryCaptureImageStorage}])
def test_pixels_that_may_show_text_are_not_drawn(tags: dict[str, object]) -> None:
    found = read_preview(dicom_bytes(picture(1), **tags))
    assert found.picture is None
    assert "text on the patient" in found.fields["picture"]


def test_no_text_of_a_header_is_in_the_fields() -> None:
    """Every element holds a planted text once, also those of numbers and of closed words."""
    pixels = blob((4, 20, 20), 1)[2]
    for keyword in (*BROKEN_TAGS, None):
        dataset = slice_of(pixels, 0)
        if keyword:
            tag = pydicom.tag.Tag(keyword)
            dataset.pop(tag, None)
            dataset.add_new(tag, "LO", f"PLANT{keyword[:10].upper()}")
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of texts that are in the wrong place, as they are meant to be
            pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        fields = read_preview(buffer.getvalue()).fields
        text = json.dumps(fields)
        assert [needle for needle in needles() if needle in text] == []
        if keyword is None:
            assert fields["PixelSpacing"] == "2, 2"
            assert fields["ImagePositionPatient"] == "-10, -20, 5"
            assert fields["SOPClassUID"] == "CT Image Storage"
            assert not {*PLANTED_TAGS} & fields.keys()


def test_a_volume_is_drawn_by_its_middle_plane() -> None:
    volume_xyz = blob((40, 36, 30), 3)
    whole = nifti_bytes(volume_xyz, (2.0, 3.0, 4.0))
    plane = stretched(volume_xyz[:, :, 15].T[::-1])
    damaged = bytearray(gzip.compress(whole, mtime=0))
    damaged[-8] ^= 1
    swapped = nibabel.Nifti1Image(volume_xyz, np.eye(4), nibabel.Nifti1Header(endianness=">")).to_bytes()
    two_members = gzip.compress(whole[:9000], mtime=0) + gzip.compress(whole[9000:], mtime=0)
    for data in (whole, bytes(damaged), swapped, two_members):
        shown = read_preview(data).picture
        assert shown is not None
        assert np.abs(shown - plane).max() <= 1
    assert read_preview(whole).fields["pixdim"] == "2, 3, 4"
    waves = np.exp(1j * np.linspace(0, 9, volume_xyz.size).reshape(volume_xyz.shape)) * volume_xyz
    complex_numbers = nibabel.Nifti1Image(waves.astype(np.complex64), np.eye(4)).to_bytes()
    magnitude = read_preview(complex_numbers).picture
    assert magnitude is not None
    assert np.abs(magnitude - stretched(np.abs(volume_xyz[:, :, 15]).T[::-1])).max() <= 1
    cut = read_preview(whole[: 352 + 2 * 40 * 36 * 4 + 100]).picture
    assert cut is not None
    assert np.abs(cut - stretched(volume_xyz[:, :, 3].T[::-1])).max() <= 1


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", b"nothing of ours", b"\x89PNG\r\n\x1a\n", b"\0" * 128 + b"DICM" + b"\xff" * 40]
)
def test_what_cannot_be_read_has_no_picture(data: bytes) -> None:
    assert read_preview(data).picture is None


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_format_without_a_lenient_reader_is_drawn_if_it_is_sound(tmp_path: Path, suffix: str) -> None:
    volume = blob((30, 36, 40), 3)
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing((2.0, 3.0, 4.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    data = (tmp_path / f"a{suffix}").read_bytes()
    found = read_preview(data)
    assert found.fields == {"size": "30 x 36 x 40", "spacing, mm": "4, 3, 2"}
    assert found.picture is not None
    assert np.abs(found.picture - stretched(volume[15, ::-1])).max() <= 1
    assert read_preview(data[:-5000]).picture is None


@pytest.mark.parametrize("name", ["BMP", "WEBP", "TIFF"])
def test_pictures_of_every_format_are_drawn(name: str) -> None:
    pixels, buffer = picture(2), io.BytesIO()
    Image.fromarray(pixels).save(buffer, name, **({"lossless": True} if name == "WEBP" else {}))
    shown = read_preview(buffer.getvalue()).picture
    assert shown is not None
    assert np.array_equal(shown[..., 0] if shown.ndim == 3 else shown, pixels)


def test_large_pictures_become_small() -> None:
    assert shrink(np.zeros((3000, 1500), np.float32)).shape == (PREVIEW_SIDE, PREVIEW_SIDE // 2)


def headers_of(files: tuple[bytes, ...]) -> list[HeaderInfo]:
    found = [READERS["dicom"].read_header(data, ReadRules(), whole=True) for data in files]
    return [one for one in found if isinstance(one, HeaderInfo)]


def test_the_odd_slice_of_a_series_is_in_its_facts() -> None:
    files = list(series_bytes(blob((6, 20, 20), 2)))
    files[4] = dicom_bytes(blob((6, 20, 20), 2)[4], **AXIAL | {"ImagePositionPatient": [0, 0, 9], "PixelSpacing": [3, 2]})
    facts = describe_series(headers_of(tuple(files)))
    assert facts["steps between slices, mm"] == "2 (3 x), 3 (1 x), 1 (1 x)"
    assert facts["PixelSpacing"] == "2, 2 (5 files); 3, 2 (1 file)"
    assert facts["positions, mm"] == "6 places from 0 to 10"
    assert "angle between stack and normal" not in facts
    tilted = [dicom_bytes(blob((3, 9, 9), 1)[z], **AXIAL | {"ImagePositionPatient": [0, 2 * z, 2 * z]}) for z in range(3)]
    assert describe_series(headers_of(tuple(tilted)))["angle between stack and normal"] == "45.0 degrees"


def test_values_are_those_of_the_file() -> None:
    volume_xyz = blob((40, 36, 30), 4)
    volume_xyz[:, 0, 0] = 30_000  # a few outliers do not widen the bins
    item = RawItem(uri="a", files=(nifti_bytes(volume_xyz, (2.0, 2.0, 2.0)),))
    values = count_source_values(READERS["nifti"].decode(item))
    counts = np.histogram(volume_xyz, bins=BINS, range=(values.low, values.high))[0] / volume_xyz.size
    assert np.abs(np.array(values.shares) - counts).max() < 0.002  # what lies beyond is in the ends
    assert (values.minimum, values.maximum) == (volume_xyz.min(), volume_xyz.max())
    assert values.high < 100
    assert sum(values.shares) == pytest.approx(1, abs=0.0005)


def test_other_bins_hold_the_same_values() -> None:
    numbers = np.random.default_rng(0).normal(100, 30, 100_000).clip(0, 200)
    shares = np.histogram(numbers, bins=BINS, range=(0, 200))[0] / numbers.size
    values = SourceValues(low=0, high=200, minimum=0, maximum=200, shares=tuple(shares))
    edges = np.linspace(-50, 250, 31)
    found = rebin(values, edges)
    assert found.sum() == pytest.approx(1)
    assert np.abs(found - np.histogram(numbers, edges)[0] / numbers.size).max() < 0.01


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lab = tmp_path_factory.mktemp("refused")
    write_volumes(lab / "raw")
    write_refusals(lab / "raw" / "refused")
    assert main(["prepare", str(lab / "raw"), *VOLUMES, "--source-names", "relative", "--out", str(lab / "ct")]) == 3
    return lab / "ct"


@pytest.mark.integration
def test_what_was_refused_is_seen_and_explained(refused: Path) -> None:
    record = parse_checked((refused / PREVIEWS).read_bytes())
    assert isinstance(record, dict)
    seen = {one["uri"].partition("#")[0]: one for one in record["inputs"]}
    pictured = {uri for uri, one in seen.items() if one["picture"]}
    folders = {f"refused/{name}" for name in ("uneven", "sizes", "colour", "cut.nii", "complex.nii", "photograph.png")}
    assert pictured == {"mr/bad_crc.nii.gz", *folders}
    fields = {uri: dict(one["fields"]) for uri, one in seen.items()}
    assert fields["refused/uneven"]["steps between slices, mm"] == "2 (3 x), 3 (2 x)"
    assert fields["refused/sizes"]["Rows x Columns"] == "40 x 40 (5 files); 30 x 30 (1 file)"
    assert fields["refused/colour"]["PhotometricInterpretation"] == "RGB"
    assert fields["refused/complex.nii"]["datatype"] == "32"
    assert fields["refused/notes.txt"] == {"bytes": "14"}
    odd = base64.b64decode(seen["refused/sizes"]["picture"].partition(",")[2])
    assert Image.open(io.BytesIO(odd)).size == (30, 30)  # the file that the reason names
    page = (refused / PAGE).read_text()
    assert "2 (3 x), 3 (2 x)" in page
    assert all(one["picture"] in page for one in record["inputs"])


@pytest.mark.integration
def test_values_before_and_after_stand_beside_each_other(refused: Path) -> None:
    record = parse_checked((refused / PREVIEWS).read_bytes())
    assert isinstance(record, dict)
    values = {one["uri"].partition("#")[0]: one["values"] for one in record["values"]}
    assert values.keys() == {"ct/a.nii.gz", "ct/b.nii", "ct/series", "mr/c.nii"}
    assert values["ct/a.nii.gz"]["minimum"] == blob((40, 36, 30), 1).min()
    page = (refused / PAGE).read_text()
    assert page.count('<div class="quiet">before</div>') == page.count('<div class="quiet">after</div>') == 2
    assert "value in the source, HU" in page


@pytest.mark.integration
def test_a_dataset_without_a_record_has_a_page(refused: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also one whose record is damaged, or of another dataset."""
    bucket = Bucket(str(refused))
    kept, tables = (refused / PREVIEWS).read_bytes(), read_tables(bucket)
    try:
        (refused / PREVIEWS).write_bytes(kept[:500])
        page = build_page(bucket, tables).decode()
        assert "previews.json is damaged" in caplog.text
        (refused / PREVIEWS).unlink()
        assert build_page(bucket, tables).decode() == page
        assert "The values before are not known" in page
        assert "up to 0.25 mm off any even grid" in page
        (refused / PREVIEWS).write_bytes(kept)
        other = replace(tables, manifest=replace(tables.manifest, name="other"))
        assert "The values before are not known" in build_page(bucket, other).decode()
        assert build_page(bucket, tables) == (refused / PAGE).read_bytes()
    finally:
        (refused / PREVIEWS).write_bytes(kept)


@pytest.mark.integration
def test_inputs_are_found_behind_hashed_names(refused: Path, tmp_path: Path) -> None:
    assert main(["prepare", str(refused.parent / "raw"), *VOLUMES, "--out", str(tmp_path / "ct")]) == 3
    records = [parse_checked((out / PREVIEWS).read_bytes()) for out in (refused, tmp_path / "ct")]
    pictures = [sorted(one["picture"] for one in record["inputs"]) for record in records]  # type: ignore[index]
    assert pictures[0] == pictures[1]
    assert b"refused" not in (tmp_path / "ct" / PREVIEWS).read_bytes()


@pytest.mark.integration
def test_sources_in_a_store_are_seen_as_those_of_a_folder(refused: Path, s3_bucket: Bucket) -> None:
    raw, out = s3_bucket.at("raw"), s3_bucket.at("ct")
    for path in sorted((refused.parent / "raw").rglob("*")):
        if path.is_file() and not path.name.startswith(".crossdim"):
            raw.put(str(path.relative_to(refused.parent / "raw")), path.read_bytes())
    store = ["--endpoint-url", str(s3_bucket.options.endpoint_url), "--access-key", "k", "--secret-key", "s"]
    names = ["--source-names", "relative", "--salt-file", str(refused.parent / "raw" / ".crossdim-salt")]
    assert main(["prepare", raw.url, *VOLUMES, *names, *store, "--out", out.url]) == 3
    assert out.read(PREVIEWS) == (refused / PREVIEWS).read_bytes()
    assert out.read(PAGE) == (refused / PAGE).read_bytes()


@pytest.mark.integration
def test_no_more_is_read_than_allowed(refused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def count_bytes(source: Bucket, path: str, num_bytes: int, *, version: str = "") -> bytes:
        read.append(num_bytes)
        return read_head(source, path, num_bytes, version=version)

    monkeypatch.setattr(previews, "read_head", count_bytes)
    monkeypatch.setattr(previews, "MAX_INPUTS", 7)
    monkeypatch.setattr(previews, "MAX_BYTES", 12_000)
    assert main(["prepare", str(refused.parent / "raw"), *VOLUMES, "--out", str(tmp_path / "ct")]) == 3
    record = parse_checked((tmp_path / "ct" / PREVIEWS).read_bytes())
    assert isinstance(record, dict)
    assert len(record["inputs"]) == 7
    assert len(read) + record["left_out"] == 7
    assert len(read) >= 2
    assert sum(read) <= 12_000
    assert record["values"] == []


@pytest.mark.integration
def test_the_decoder_process_answers_as_the_reader() -> None:
    data = dicom_bytes(picture(9, 200, 300))
    ours, theirs = read_preview(data), decoder_process.preview(data)
    assert theirs.fields == ours.fields
    assert np.array_equal(theirs.picture, ours.picture)  # type: ignore[arg-type]
    item = RawItem(uri="a", files=(nifti_bytes(blob((20, 20, 20), 4), (2.0, 2.0, 2.0)),), num_values=8000)
    assert decoder_process.count_values("nifti", item) == count_source_values(READERS["nifti"].decode(item))


@pytest.mark.integration
def test_none_are_made_where_none_are_wanted(refused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["prepare", str(refused.parent / "raw"), *VOLUMES[:-1], "--source-names", "relative", "--out", str(tmp_path / "ct")]
    assert main([*line, "--no-previews"]) == 3
    assert capsys.readouterr().out.splitlines()[-1] == f"look at it: {tmp_path}/ct/{PAGE}"
    assert not (tmp_path / "ct" / PREVIEWS).exists()
    assert "2 (3 x), 3 (2 x)" not in (tmp_path / "ct" / PAGE).read_text()
    assert (tmp_path / "ct" / "manifest.json").read_bytes() == (refused / "manifest.json").read_bytes()
