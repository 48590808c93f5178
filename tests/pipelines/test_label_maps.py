"""Label maps are no images: layouts, names and voxels that say so, and those that only seem to."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs import voxel_kinds
from crossdim.pipelines.jobs.label_maps import describe_maps, ignore_label_maps
from crossdim.pipelines.jobs.scan import scan_file
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.label_values import classify_values
from crossdim.pipelines.readers.nifti_header import parse_header
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.sources.label_maps import Candidate, find_by_name
from crossdim.pipelines.sources.listing import list_sources
from tests.pipelines.corpora import blob, nifti_bytes, picture

#: Listings: a name for each, then its files; those with a star are label maps by their names, with a question mark only
#: their voxels can tell.
LAYOUTS = {
    "nnU-Net raw": "imagesTr/la_003_0000.nii.gz imagesTr/la_003_0001.nii.gz labelsTr/la_003.nii.gz* imagesTs/la_9_0000.nii.gz "
    "labelsTs/la_9.nii.gz* labelsTr_v2/la_003.nii.gz*",
    "nnU-Net raw, labels alone": "labelsTr/la_003.nii.gz*",
    "nnU-Net 2D": "imagesTr/a_1_0000.png labelsTr/a_1.png*",
    "nnU-Net 2D, labels alone": "labelsTr/a_1.png*",
    "nnU-Net data set whose cases are called seg": "imagesTr/seg_001_0000.nii.gz? labelsTr/seg_001.nii.gz*",
    "nnU-Net 2D whose cases are called seg": "imagesTr/seg_001_0000.png labelsTr/seg_001.png*",
    "MSD": "Task09/imagesTr/spleen_2.nii.gz Task09/labelsTr/spleen_2.nii.gz* Task09/imagesTs/spleen_1.nii.gz",
    "BIDS": "sub-01/anat/sub-01_T1w.nii.gz derivatives/x/sub-01/anat/sub-01_dseg.nii.gz* sub-01/func/sub-01_bold.nii.gz "
    "derivatives/x/sub-01/anat/sub-01_label-GM_probseg.nii.gz* derivatives/x/sub-01/anat/sub-01_desc-brain_mask.nii.gz* "
    "derivatives/labels/sub-01/anat/sub-01_T1w_seg-manual.nii.gz* sub-01/perf/sub-01_acq-label_asl.nii.gz",
    "beside": "p1.nii.gz p1_seg.nii.gz* p2.nii p2-seg.nii* P3.NII.GZ P3_Mask.NII.GZ* p4_label_v2.nii* p4.nii",
    "BraTS": "B1/B1_t1.nii.gz B1/B1_t2.nii.gz B1/B1_flair.nii.gz B1/B1_seg.nii.gz*",
    "a folder each": "a/image.nii.gz a/label.nii.gz* b/ct.nii.gz b/segmentation.nii.gz* c/T1.nii c/label_gm.nii*",
    "TotalSegmentator": "s1/ct.nii.gz s1/segmentations/liver.nii.gz* s1/segmentations/lung_upper_lobe_left.nii.gz*",
    "folders": "images/1.png masks/1.png* img/2.jpg Ground Truth/2.png* train/image/3.png train/label/3.png*",
    "folders below folders": "images/train/1.png masks/train/1.png* train_images/2.png train_masks/2.png*",
    "COVID radiography": "COVID/images/COVID-1.png COVID/masks/COVID-1.png* Normal/images/N-1.png Normal/masks/N-1.png*",
    "BUSI": "benign/benign (1).png benign/benign (1)_mask.png* benign/benign (1)_mask_1.png* normal/normal (1).png",
    "ISIC": "ISIC_Training_Data/ISIC_01.jpg ISIC_Training_GroundTruth/ISIC_01_segmentation.png*",
    "ISIC 2018": "isic/ISIC2018_Task1-2_Training_Input/ISIC_01.jpg "
    "isic/ISIC2018_Task1_Training_GroundTruth/ISIC_01_segmentation.png*",
    "CBIS-DDSM": "Calc_full mammogram images/1.png Calc_ROI mask images/1.png*",
    "DSB 2018": "train/aa/images/aa.png train/aa/masks/77.png* train/aa/masks/99.png* "
    "train/bb/images/bb.png train/bb/masks/12.png*",
    "DSB 2018 as volumes": "aa/images/aa.nii aa/masks/77.nii*",
    "CHAOS": "CT/1/Ground/liver_GT_000.png* MR/2/T1DUAL/Ground/IMG-0004-00002.png* CT/1/x/image0.png Ground/1.png",
    "CHASE": "Image_01L.jpg Image_01L_1stHO.png* Image_01L_2ndHO.png*",
    "ISLES": "sub-1/dwi/sub-1_dwi.nii.gz derivatives/sub-1/sub-1_msk.nii.gz*",
    "classes beside images": "images/a.png mask/b.png imgs_without_mask/b.png mask_images/c.png no_mask_images/c.png",
    "masks without images": "masks/1.png annotations/2.png x/images/3.png",
    "patients of one word each": "anna_images/1.png bert_mask/1.png",
    "Montgomery": "CXR_png/M_1_0.png ManualMask/leftMask/M_1_0.png* ManualMask/rightMask/M_1_0.png*",
    "KiTS": "case_00000/imaging.nii.gz case_00000/segmentation.nii.gz*",
    "Pascal": "JPEGImages/2007_1.jpg SegmentationClass/2007_1.png*",
    "numbered": "img01.png mask01.png* image_7.png mask_7.png*",
    "classes called mask": "mask/1.png no_mask/1.png mask/2.png without_mask/2.png with_mask/1.png",
    "classes called seg and lesion": "seg/a.jpg lesion/b.jpg normal/c.jpg lesion/d.png normal/d.png",
    "all images are in labels": "labels/sick/1.png labels/well/2.png",
    "all volumes are in labels": "labels/sick/1.nii? labels/well/2.nii?",
    "names that hold a word": "maskell_01.nii segment_2.nii.gz seglmann.png unmasked_3.nii labelle.png",
    "a picture alone": "mask.png x/patient_seg.png",
    "a volume alone": "label.nii.gz? x/patient_seg.nii?",
    "project named segmentation": "lung_segmentation/1.png lung_segmentation/1_mask.png* lung_segmentation/2.png",
    "negated": "ct_without_mask.nii no_label_3.nii.gz",
    "weak words": "GT_001.nii.gz T1_lesion_07.nii.gz x_roi.png y/roi/1.png y/images/2.png",
    "DICOM has classes of its own": "labels/1.dcm images/1.dcm",
}


def named(listing: str) -> list[tuple[str, str]]:
    """Paths with what their names make of them, of a listing in words."""
    paths, mark = [], ""
    for word in listing.split(" "):
        mark = f"{mark} {word}".strip()
        if mark.rstrip("*?").lower().endswith((".nii", ".gz", ".png", ".jpg", ".dcm")):
            paths.append((mark.rstrip("*?"), mark[len(mark.rstrip("*?")) :]))
            mark = ""
    return paths


def is_volume(path: str) -> bool:
    return path.lower().endswith((".nii", ".nii.gz"))


def found(paths: list[str], shapes: dict[str, tuple[int, ...]] | None = None) -> dict[str, str]:
    chosen = [path for path in paths if not path.endswith(".dcm")]
    shapes = shapes or {}
    maps = find_by_name(
        [
            Candidate(path=p, is_volume=is_volume(p), layout_path=p, shape=shapes.get(p[4:]), lossless=not p.endswith("jpg"))
            for p in (f"raw/{path}" for path in chosen)
        ]
    )
    return {p: "*" if n in maps.reasons else "?" if n in maps.unsure else "" for n, p in enumerate(chosen)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_and_layouts_tell_label_maps(layout):
    wanted = dict(named(LAYOUTS[layout]))
    messages = found(list(wanted))

    assert messages == {path: mark for path, mark in wanted.items() if not path.endswith(".dcm")}


def test_a_weak_word_needs_an_image_of_the_same_size():
    paths = ["1.png", "1_gt.png", "images/2.png", "roi/2.png"]
    same = found(paths, dict.fromkeys(paths, (9, 9)))
    other = found(paths, dict.fromkeys(paths[::2], (9, 9)) | dict.fromkeys(paths[1::2], (4, 4)))

    assert same == {"1.png": "", "1_gt.png": "*", "images/2.png": "", "roi/2.png": "*"}
    assert set(other.values()) == {""}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
@pytest.mark.integration
def test_what_is_found_does_not_depend_on_the_order_of_the_listing(data):
    wanted = dict(named(" ".join(LAYOUTS.values())))
    paths = data.draw(st.permutations([path for path in wanted if not path.endswith(".dcm")]))

    assert found(paths) == found(sorted(paths))


def labels(shape: tuple[int, int, int], count: int, dtype: str = "u1") -> np.ndarray:
    """Blocks of labels 0 to ``count`` - 1: (x, y, z)."""
    side = 4
    blocks = np.arange(np.prod([-(-n // side) for n in shape])).reshape([-(-n // side) for n in shape]) % count
    for axis in range(3):
        blocks = np.repeat(blocks, side, axis=axis)
    return blocks[: shape[0], : shape[1], : shape[2]].astype(dtype)


def write(path: Path, array: np.ndarray, spacing_mm: tuple[float, float, float] = (1.5, 1.5, 2.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = nifti_bytes(array, spacing_mm)
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.lower().endswith(".gz") else data)


@pytest.fixture
def outcome(monkeypatch):
    """What becomes of the files of a folder, by path; the work of Ray's tasks is done here."""

    def each(documents, work, concurrency=None):
        assert concurrency is None
        return map(work, documents)

    monkeypatch.setattr(voxel_kinds, "run_each", each)

    def of(*folders: Path, recipe: str = "mixed-superpatches:tiny") -> dict[str, ScanResult]:
        sources, files = list_sources([Bucket(str(folder)) for folder in folders])
        results = [scan_file(file, sources, ReadRules()) for file in files]
        found = ignore_label_maps(results, sources, resolve(recipe), quiet=True)
        return {result.uri: result for result in found}

    return of


def maps(results: dict[str, ScanResult]) -> set[str]:
    assert all(v.status == "ignored" and v.header is None for v in results.values() if v.rule == "label_map")
    return {uri for uri, result in results.items() if result.rule == "label_map"}


def test_integers_that_look_like_labels_are_labels_beside_an_image_of_the_same_grid(tmp_path, outcome):
    shape = (20, 16, 12)
    write(tmp_path / "p1" / "scan.nii.gz", blob(shape, 1))
    write(tmp_path / "q1" / "liver.nii.gz", labels(shape, 3))
    write(tmp_path / "q1" / "organs.nii", labels(shape, 100, "<i4"))
    write(tmp_path / "q1" / "second_scan.nii", blob(shape, 2))
    write(tmp_path / "q1" / "gray.nii", (blob(shape, 3) % 200).astype("u1"))
    write(tmp_path / "q1" / "other_grid.nii", labels(shape, 3), (1.5, 1.5, 2.1))
    write(tmp_path / "q1" / "other_shape.nii", labels((20, 16, 11), 3))
    write(tmp_path / "q1" / "all_zero.nii", np.zeros(shape, "u1"))
    results = outcome(tmp_path)

    assert maps(results) == {"q1/liver.nii.gz", "q1/organs.nii"}
    assert all(v.status == "ok" for uri, v in results.items() if uri not in maps(results))
    assert "an image of the same grid" in results["q1/liver.nii.gz"].reason
    assert "2 files are label maps, such as 'q1/liver.nii.gz'" in str(describe_maps(results.values()))
    assert describe_maps([results["q1/gray.nii"]]) is None


def test_volumes_of_few_values_are_images_where_no_other_image_has_their_grid(tmp_path, outcome):
    """A phantom, its phases, and its segmentation: the phantom is an image although it has few values."""
    shape = (12, 12, 12)
    for phase in range(3):
        write(tmp_path / f"phantom_{phase}.nii", labels(shape, 5 + phase, "<i2"))
    write(tmp_path / "phantom_0_seg.nii.gz", labels(shape, 2))

    assert maps(outcome(tmp_path)) == {"phantom_0_seg.nii.gz"}


def test_a_scaled_volume_of_few_stored_values_makes_no_label_maps_of_its_neighbours(tmp_path, outcome):
    """A phantom of few values, stored plain and stored with a slope: neither is an image that the other could be labels of."""
    for number, slope in enumerate((1.0, 1.0, 2.0, -1.0)):
        write(tmp_path / f"phantom_{number}.nii", labels((12, 13, 14), 5 + number, "<i2"))
        data = bytearray((tmp_path / f"phantom_{number}.nii").read_bytes())
        struct.pack_into("<ff", data, 112, slope, 3.0 if slope != 1 else 0.0)
        (tmp_path / f"phantom_{number}.nii").write_bytes(data)

    assert maps(outcome(tmp_path)) == set()


def test_volumes_of_few_stored_values_are_no_image_that_makes_labels_of_others(tmp_path, outcome):
    """Scaled, as floats, with NaN, or as first of two frames: a phantom stays one, however it is stored."""
    values = labels((12, 12, 12), 9, "<i2")
    write(tmp_path / "plain.nii", values)
    scaled = bytearray(nifti_bytes(values + 1, (1.5, 1.5, 2.0)))
    scaled[112:120] = np.array([2, -10], "<f4").tobytes()
    (tmp_path / "scaled.nii").write_bytes(scaled)
    write(tmp_path / "floats.nii", np.where(values == 3, np.nan, values).astype("<f4"))
    write(tmp_path / "frames.nii", np.stack([values, values], axis=-1))

    assert maps(outcome(tmp_path)) == set()
    write(tmp_path / "scan.nii", blob((12, 12, 12), 1).astype("<f4"))
    assert maps(outcome(tmp_path)) == {"plain.nii"}


def test_whole_floats_on_the_grid_of_an_image_are_labels_and_counts_of_photons_are_not(tmp_path, outcome):
    shape = (16, 16, 16)
    counts = np.random.default_rng(0).poisson(6, shape) + 1
    for dtype in ("<f4", "<f8", "<i2"):
        write(tmp_path / f"wmh_{np.dtype(dtype).name}.nii", labels(shape, 3, dtype))
        write(tmp_path / f"spect_{np.dtype(dtype).name}.nii", counts.astype(dtype))
    write(tmp_path / "half.nii", labels(shape, 5, "<f4") + 0.5)
    write(tmp_path / "pre" / "FLAIR.nii", blob(shape, 1).astype("<f4"))

    assert maps(outcome(tmp_path)) == {f"wmh_{kind}.nii" for kind in ("float32", "float64", "int16")}


def test_of_a_volume_named_for_labels_without_its_image_the_voxels_decide(tmp_path, outcome):
    shape = (16, 12, 10)
    write(tmp_path / "label.nii.gz", labels(shape, 4))
    write(tmp_path / "seg_2.nii", blob(shape, 2))
    write(tmp_path / "probseg.nii", np.linspace(0, 1, 1920, dtype="f4").reshape(shape))
    write(tmp_path / "mask_3.nii", np.zeros(shape, "u1"), (3.0, 3.0, 3.0))
    write(tmp_path / "labels" / "4.nii", labels(shape, 4, "f4"), (4.0, 3.0, 3.0))
    write(tmp_path / "labels" / "5.nii", blob(shape, 2).astype("f4"), (4.0, 3.0, 3.0))

    assert maps(outcome(tmp_path)) == {"label.nii.gz", "probseg.nii", "mask_3.nii", "labels/4.nii"}


def test_a_broken_label_map_is_a_label_map_and_a_broken_volume_is_refused(tmp_path, outcome):
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", blob((9, 9, 9), 1))
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "labelsTr" / "a.nii.gz").write_bytes(b"")
    (tmp_path / "imagesTr" / "b_0000.nii.gz").write_bytes(b"")
    results = outcome(tmp_path)

    assert maps(results) == {"labelsTr/a.nii.gz"}
    assert results["imagesTr/b_0000.nii.gz"].status == "refused"


#: Names of SRC's own folder, and which of two files below it are label maps there.
FOLDERS_OF_THE_SOURCE = {
    **{name: {"a_1.nii.gz", "2/b_dseg.nii.gz"} for name in ("labelsTr", "labelsTs", "labelsVal", "labelsTr_v2")},
    "derivatives": {"2/b_dseg.nii.gz"},
    **{name: set() for name in ("masks", "labels", "label_study", "labelsTraining", "dseg", "imagesTr", "seg", "Derivatives")},
}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", FOLDERS_OF_THE_SOURCE)
def test_the_name_of_srcs_own_folder_counts_where_a_layout_gives_it(tmp_path, outcome, name, several):
    """A study called ``masks`` is one of images: only names that nothing else has count, as those of nnU-Net, MSD and BIDS."""
    for path in ("a_1.nii.gz", "2/b_dseg.nii.gz"):
        write(tmp_path / name / path, blob((9, 8, 7), 1))
    others = [tmp_path / "others"] * several
    for folder in others:
        write(folder / "c.nii", blob((9, 8, 6), 2))

    assert maps(outcome(tmp_path / name, *others)) == {f"{name}/" * several + path for path in FOLDERS_OF_THE_SOURCE[name]}


def test_a_label_map_that_is_named_alone_is_one_by_the_folder_that_it_lies_in(tmp_path, outcome):
    write(tmp_path / "labelsTs" / "a.nii.gz", blob((9, 8, 7), 1))

    assert maps(outcome(tmp_path / "labelsTs" / "a.nii.gz")) == {"a.nii.gz"}


def test_masks_of_pictures_are_told_by_name_and_never_by_their_pixels(tmp_path, outcome):
    for folder, name in [("images", "1"), ("masks", "1"), ("mask", "2"), ("flat", "3")]:
        (tmp_path / folder).mkdir()
        Image.fromarray(picture(1) if folder == "images" else picture(1) // 200 * 255).save(tmp_path / folder / f"{name}.png")

    assert maps(outcome(tmp_path, recipe="xray-pseudo3d:tiny")) == {"masks/1.png"}


def test_values_are_read_from_gzip_members_and_until_damage():
    shape = (40, 30, 20)
    data = nifti_bytes(labels(shape, 60), (1.0, 1.0, 1.0))
    members = gzip.compress(data[:5000], mtime=0) + gzip.compress(data[5000:], mtime=0)
    rules = ReadRules()

    assert (
        classify_values(parse_header, data, rules)
        is classify_values(parse_header, gzip.compress(data), rules)
        is classify_values(parse_header, members, rules)
        is Values.LABELS
    )
    assert classify_values(parse_header, members[:-200], rules) is classify_values(parse_header, data[:-1], rules) is Values.OTHER
    assert classify_values(parse_header, nifti_bytes(labels(shape, 33, "f4") * 0.5, (1.0, 1.0, 1.0)), rules) is Values.OTHER
    assert classify_values(parse_header, nifti_bytes(labels(shape, 33, "f4") / 64, (1.0, 1.0, 1.0)), rules) is Values.FRACTIONS
    noise = np.random.default_rng(0).integers(0, 100, shape)
    assert classify_values(parse_header, nifti_bytes(noise.astype("u1"), (1.0, 1.0, 1.0)), rules) is Values.OTHER
    assert classify_values(parse_header, nifti_bytes((noise % 20).astype("u1"), (1.0, 1.0, 1.0)), rules) is Values.OTHER
    for mean in (0.5, 1, 6):  # counts of photons
        counts = np.random.default_rng(0).poisson(mean, shape)
        assert classify_values(parse_header, nifti_bytes(counts.astype("<i2"), (1.0, 1.0, 1.0)), rules) is Values.OTHER
    vessels = np.zeros(shape, "u1")
    vessels[np.arange(20), np.arange(20), np.arange(20)], vessels[3, 4, 5:9] = 1, 2
    assert classify_values(parse_header, nifti_bytes(vessels, (1.0, 1.0, 1.0)), rules) is Values.LABELS


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8"])
def test_labels_are_told_in_every_type_of_number_to_its_ends(dtype):
    shape = (9, 8, 7)
    blocks = labels(shape, 3, dtype)
    ends = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    blocks[0, 0, 0], blocks[1, 0, 0] = ends.min, ends.max
    image = nibabel.Nifti1Image(blocks, np.eye(4), dtype=blocks.dtype)

    assert classify_values(parse_header, image.to_bytes(), ReadRules()) is Values.LABELS


def test_every_real_label_map_is_told_from_every_real_image(real_data):
    for path in sorted([*real_data.glob("seg/**/*.nii*"), *real_data.glob("ct/*.nii*"), *real_data.glob("mr/*.nii*")]):
        is_label = path.parent.name == "aorta" or "label" in path.name
        if path.name != "label_gm_float.nii.gz":  # gray values by its voxels, a label by its name
            assert (classify_values(parse_header, path.read_bytes(), ReadRules()) is Values.LABELS) == is_label, path


CASES = ("spine_t2", "stroke_lesion", "totalseg_mr_sm", "spine_mt1", "prostate_phantom")


@pytest.fixture(params=["nnU-Net", "MSD", "BIDS", "folders", "beside", "nameless", "as they lie"])
def tree(request, real_data, tmp_path) -> tuple[Path, set[str]]:
    """Real volumes with their real label maps in one layout, and which files are label maps."""
    where = {
        "nnU-Net": ("imagesTr/{0}_0000.nii.gz", "labelsTr/{0}.nii.gz"),
        "MSD": ("Task01/imagesTr/{0}.nii.gz", "Task01/labelsTr/{0}.nii.gz"),
        "BIDS": ("sub-{1}/anat/sub-{1}_T2w.nii.gz", "derivatives/manual/sub-{1}/anat/sub-{1}_dseg.nii.gz"),
        "folders": ("scans/{0}.nii.gz", "segmentations/{0}.nii.gz"),
        "beside": ("{0}.nii.gz", "{0}-seg.nii.gz"),
        "nameless": ("a/{0}.nii.gz", "b/{0}.nii.gz"),
        "as they lie": ("{0}/image.nii.gz", "{0}/label.nii.gz"),
    }[request.param]
    wanted = set()
    for number, case in enumerate(CASES):
        image, label = (one.format(case, number) for one in where)
        for name, source in ((image, "image.nii.gz"), (label, "label.nii.gz")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(real_data / "seg" / case / source, tmp_path / name)
        wanted.add(label)
    return tmp_path, wanted


def test_in_every_layout_of_real_volumes_exactly_the_label_maps_are_set_aside(tree, outcome):
    folder, wanted = tree
    results = outcome(folder)

    assert maps(results) == wanted
    assert all(result.status == "ok" for uri, result in results.items() if uri not in wanted)


@pytest.mark.parametrize("name", ["seg", "study1", "label_study", "labels", "masks"])
def test_a_name_of_srcs_own_folder_that_no_layout_gives_makes_no_label_map(name, tmp_path, outcome):
    """A volume of few values alone, two of one grid, and one whose own name says what it is."""
    for folder in (tmp_path / name, tmp_path / "other"):
        write(folder / "ct.nii.gz", blob((20, 16, 12), 1))
        write(folder / "phantom.nii.gz", labels((20, 16, 11), 3))
        write(folder / "phantom_mask.nii.gz", labels((20, 16, 11), 3))
        write(folder / "a" / "sub-1_seg.nii.gz", labels((20, 16, 10), 3))
    found = {folder: outcome(tmp_path / folder) for folder in (name, "other")}

    assert {uri: result.reason for uri, result in found[name].items()} == {
        uri: result.reason for uri, result in found["other"].items()
    }
    assert maps(found[name]) == {"phantom_mask.nii.gz", "a/sub-1_seg.nii.gz"}


def test_the_folder_of_real_label_maps_as_it_lies(real_data, tmp_path, outcome):
    """Organs of one volume, fractions, points, and label maps whose image lies elsewhere; some only the folder's name tells."""
    (tmp_path / "seg").symlink_to(real_data / "seg")
    results = outcome(tmp_path)

    assert {uri for uri in results if uri not in maps(results)} == {uri for uri in results if "image.nii" in uri}
