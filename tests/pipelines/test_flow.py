"""From files to a dataset on a real local Ray: raw folders in, a dataset out that other libraries open."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from crossdim.foundation.cluster import ray_session
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.ray_data import run_each
from crossdim.pipelines.jobs.rows import decode_row
from crossdim.storage_schema.errors import CrossdimError, StorageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, parse_manifest
from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from tests.pipelines.corpora import blob, write_images, write_series, write_volumes

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of Ray's own processes
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
TINY_VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=32", "--source-names", "relative")


@pytest.fixture(scope="module", autouse=True)
def session():
    """One Ray session for all tests of this module; the verbs join it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ray_session(num_cpus=2):
            yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_images(folder / "images")
    write_volumes(folder / "volumes")
    return folder


@pytest.fixture(scope="module")
def images(raw, tmp_path_factory) -> Path:
    """A published dataset of images."""
    out = tmp_path_factory.mktemp("images") / "xr"
    assert prepare_images(raw, out) == 3
    return out


@pytest.fixture(scope="module")
def volumes(raw, tmp_path_factory) -> Path:
    """A published dataset of volumes."""
    out = tmp_path_factory.mktemp("volumes") / "ct"
    assert main(["prepare", str(raw / "volumes"), *TINY_VOLUMES, "--out", str(out), "--json"]) == 3
    return out


def prepare_images(raw: Path, out: object, *more: str) -> int:
    recipe = ["--recipe", "xray-pseudo3d:tiny", "--set", "shard.max_samples=3", "--test-fraction", "0.3"]
    return main(["prepare", str(raw / "images"), *recipe, "--label", "folder", "--out", str(out), "--json", *more])


def rows_of(dataset: Path, table: str) -> list[dict]:
    return pq.read_table(dataset / table).to_pylist()


def manifest_of(dataset: Path):
    return parse_manifest((dataset / MANIFEST_PATH).read_bytes(), str(dataset))


def array_of(dataset: Path, row: dict) -> np.ndarray:
    data = (dataset / row["object"]).read_bytes()[row["offset"] : row["offset"] + row["length"]]
    return decode_row(data, row)


def last_answer(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_images_are_published_with_labels_and_a_reason_for_each_refusal(images):
    """Twelve good files, one cut, one twice, one foreign."""
    rows, refused = rows_of(images, "catalog"), rows_of(images, "quarantine")

    assert len(rows) == 12
    assert Counter(row["label"] for row in rows) == {"well": 8, "sick": 4}
    assert {row["modality"] for row in rows} == {"OT"}
    assert {(Path(row["uri"]).name, row["stage"], row["rule"]) for row in refused} == {
        ("cut.png", "decode", "truncated"),
        ("p999_again.png", "publish", "duplicate"),
    }
    assert not (images / "_work").exists()


def is_source(path: Path) -> bool:
    """Whether a path is a file that was there before; ``prepare`` keeps its key and its table of names beside the sources."""
    return path.is_file() and not path.name.startswith(".crossdim-")


def files_of(dataset: Path) -> tuple[int, ...]:
    """Files in, used, quarantined and ignored, by the manifest."""
    files = manifest_of(dataset).files
    return (files.total, files.used, files.quarantined, files.ignored)


def test_every_file_is_used_or_quarantined_or_ignored(images, volumes, raw):
    """To the unit, and held against what lies on disk."""
    assert files_of(images) == (15, 12, 2, 1)
    assert files_of(volumes) == (4 + 24, 3 + 24, 1, 0)
    for dataset, folder in ((images, "images"), (volumes, "volumes")):
        on_disk = {str(path.relative_to(raw / folder)) for path in (raw / folder).rglob("*") if is_source(path)}
        assert files_of(dataset)[0] == len(on_disk)
        assert {row["uri"] for row in rows_of(dataset, "ignored")} <= on_disk
        assert sum(row["num_files"] for row in rows_of(dataset, "quarantine")) == files_of(dataset)[2]
    assert [(row["format"], row["rule"]) for row in rows_of(images, "ignored")] == [("text", "not_an_image")]


def test_files_of_series_are_counted_one_by_one(tmp_path, capsys):
    """A slice stored twice, a series without its third slice of nine, a volume stored twice, litter, and a format not read."""
    source = tmp_path / "raw"
    write_series(source / "a", blob((24, 40, 36), 5), "1.2.1")
    shutil.copy(source / "a" / "00.dcm", source / "a" / "again.dcm")
    write_series(source / "b", blob((9, 40, 36), 6), "1.2.2")
    (source / "b" / sorted(os.listdir(source / "b"))[4]).unlink()
    write_volumes(source / "v")
    shutil.copy(source / "v" / "mr" / "c.nii", source / "v" / "mr" / "d.nii")
    (source / "._x.nii").write_bytes(b"\0\5\x16\7")
    (source / "scan.vtk").write_bytes(b"# vtk DataFile")
    line = ["prepare", str(source), *TINY_VOLUMES, "--out", str(tmp_path / "out"), "--json"]

    assert main(line) == 3
    answer = last_answer(capsys)
    total = sum(map(is_source, source.rglob("*")))
    assert answer["files"] == {"total": total, "used": 24 + 3 + 24 + 6, "quarantined": 1 + 2 + 1 + 1, "ignored": 2}
    assert answer["images_not_read"] == {"VTK": 1}
    rows = [(row["rule"], row["num_files"]) for row in rows_of(tmp_path / "out", "quarantine")]
    assert sorted(rows) == [("beyond_gap", 2), ("duplicate", 1), ("duplicate", 1), ("gzip", 1)]
    assert main(["verify", str(tmp_path / "out"), "--json"]) == 0


def test_equal_images_under_two_labels_are_told(tmp_path, capsys):
    write_images(tmp_path / "raw", count=4)
    (tmp_path / "raw" / "well" / "p999_again.png").rename(tmp_path / "raw" / "sick" / "same.png")
    line = ["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", "--label", "folder"]

    assert main([*line, "--out", str(tmp_path / "o")]) == 3
    conflicts = [row["reason"] for row in rows_of(tmp_path / "o", "quarantine") if row["rule"] == "label_conflict"]
    assert len(conflicts) == 2
    assert all("'sick'" in reason and "'well'" in reason for reason in conflicts)
    said = capsys.readouterr().out
    assert "files: 7 = 3 used, 3 quarantined, 1 ignored" in said
    assert "label_conflict 2" in said


def test_stored_and_virtual_views_are_the_same_bits_under_the_same_keys(images, raw, tmp_path):
    """A reader that unrolls the virtual image must see what the stored view holds."""
    assert prepare_images(raw, tmp_path / "virtual", "--set", "mode=virtual") == 3
    spec = Pseudo3D(**manifest_of(images).preprocessing["pseudo3d"])
    virtual = {row["key"]: array_of(tmp_path / "virtual", row) for row in rows_of(tmp_path / "virtual", "catalog")}
    stored = {row["key"]: array_of(images, row) for row in rows_of(images, "catalog")}

    assert virtual.keys() == stored.keys()
    assert all(np.array_equal(unroll(virtual[key], spec), stored[key]) for key in stored)


def test_volumes_are_published_and_a_bad_checksum_is_not(volumes):
    """Three NIfTI files and one DICOM series are sound; nibabel alone would have read the damaged one too."""
    rows, refused = rows_of(volumes, "catalog"), rows_of(volumes, "quarantine")
    first_boxes = {row["source_uri"]: row for row in rows if row["part"] == "box=00"}

    (series,) = (uri for uri in first_boxes if uri.startswith("ct/series#"))
    assert set(first_boxes) == {"ct/a.nii.gz", "ct/b.nii", series, "mr/c.nii"}
    assert "1.2.3.4" not in series
    assert [(row["uri"], row["rule"]) for row in refused] == [("mr/bad_crc.nii.gz", "gzip")]
    assert {first_boxes[series]["modality"], first_boxes["mr/c.nii"]["modality"]} == {"CT", "MR"}
    assert first_boxes["ct/a.nii.gz"]["unit_low"] == -1000.0
    assert manifest_of(volumes).preprocessing["superpatch"]["side"] == 32


@pytest.mark.parametrize("dataset", ["images", "volumes"])
def test_a_sound_dataset_verifies(dataset, request, capsys):
    path = request.getfixturevalue(dataset)
    assert main(["verify", str(path), "--json"]) == 0

    report = last_answer(capsys)
    assert report["problems"] == []
    assert report["samples"] == len(rows_of(path, "catalog"))


@pytest.mark.parametrize("dataset", ["images", "volumes"])
def test_verify_finds_a_flipped_byte_and_names_the_object_and_the_sample(dataset, request, tmp_path, capsys):
    """One bit in one sample is enough; every problem is told."""
    shutil.copytree(request.getfixturevalue(dataset), tmp_path / "copy")
    row = rows_of(tmp_path / "copy", "catalog")[-1]
    path = tmp_path / "copy" / row["object"]
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["length"] - 10] ^= 1
    path.write_bytes(data)
    (tmp_path / "copy" / "quarantine" / "part-00000.parquet").unlink()

    assert main(["verify", str(tmp_path / "copy"), "--json"]) == 2
    message = json.dumps(last_answer(capsys)["problems"])
    assert row["object"] in message
    assert row["key"] in message
    assert "sha256" in message
    assert "crc32c" in message
    assert "quarantine/part-00000.parquet" in message


def test_the_same_line_again_says_already_published(images, raw, capsys):
    """A second run must neither work nor fail."""
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*")}
    assert prepare_images(raw, images) == 3

    assert last_answer(capsys)["already_published"] is True
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*")} == before


def test_another_recipe_at_the_same_place_is_refused(images, raw, capsys):
    assert prepare_images(raw, images, "--set", "fit.max_side=32") == 2
    assert "another recipe or with other settings; use another --out" in capsys.readouterr().err


_WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from crossdim.pipelines.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("none", 3, "already published"),
        ("touch", 3, "already published"),
        ("content", 2, "hold other content"),
        ("new", 2, "1 file added, 0 changed, 0 gone (added: well/new.png)"),
        ("renamed", 2, "1 file added, 0 changed, 1 gone (added: well/renamed.png; gone: well/p001.png)"),
    ],
)
def test_a_published_dataset_answers_without_ray(change, code, message, images, raw, tmp_path):
    """Importing Ray alone takes longer than the answer."""
    shutil.copytree(raw / "images", tmp_path / "images")
    shutil.copytree(images, tmp_path / "xr")
    one = tmp_path / "images" / "well" / "p001.png"
    if change in ("touch", "content"):
        data = bytearray(one.read_bytes())
        data[-30] ^= change == "content"
        one.write_bytes(data)
    elif change == "new":
        shutil.copy(one, one.with_name("new.png"))
    elif change == "renamed":
        one.rename(one.with_name("renamed.png"))
    recipe = ["--recipe", "xray-pseudo3d:tiny", "--set", "shard.max_samples=3", "--test-fraction", "0.3", "--label", "folder"]
    line = [sys.executable, "-c", _WITHOUT_RAY, "prepare", str(tmp_path / "images"), *recipe, "--out", str(tmp_path / "xr")]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert done.returncode == code, done.stderr
    assert message in done.stdout + done.stderr


def test_a_published_dataset_that_lost_an_object_does_not_say_that_it_is_there(images, raw, tmp_path, capsys):
    shutil.copytree(images, tmp_path / "xr")
    ignored = tmp_path / "xr" / "ignored" / "part-00000.parquet"
    data = bytearray(ignored.read_bytes())
    data[60] ^= 1
    ignored.write_bytes(data)
    assert prepare_images(raw, tmp_path / "xr") == 2
    assert "its sha256 is" in capsys.readouterr().err
    ignored.unlink()
    assert prepare_images(raw, tmp_path / "xr") == 2
    assert "objects are missing or of another size, such as ignored/part-00000.parquet" in capsys.readouterr().err


def test_a_published_dataset_of_hashed_names_answers_with_its_key_only(volumes, raw, tmp_path, capsys):
    line = ["prepare", str(raw / "volumes"), *TINY_VOLUMES, "--out", str(volumes), "--json"]
    assert main(line) == 3
    assert last_answer(capsys)["quarantined_by_rule"] == {"gzip": 1}
    (tmp_path / "key").write_bytes(b"x" * 32)
    assert main([*line, "--salt-file", str(tmp_path / "key")]) == 2
    assert "was made with the secret key" in capsys.readouterr().err


def test_an_output_inside_the_source_is_wrong_use(raw, capsys):
    """The second run would find the first one's objects among its inputs."""
    assert prepare_images(raw, raw / "images" / "out") == 1
    assert "lies inside the source" in capsys.readouterr().err


def _store_is_gone(_: str) -> str:
    raise StorageError("the store is gone; check it")


def _out_of_memory(_: str) -> str:
    raise MemoryError("4 GiB")


def _worker_dies(_: str) -> str:
    os._exit(1)


TASK_ERRORS = {
    "the store is gone; check it": _store_is_gone,
    "--concurrency": _out_of_memory,
    "workers died 4 times": _worker_dies,
}


@pytest.mark.parametrize(("sentence", "work"), TASK_ERRORS.items())
def test_errors_of_tasks_arrive_as_sentences(sentence, work):
    """Ray alone would hand over a traceback as text, and would repeat a dying task for ever."""
    with pytest.raises(CrossdimError, match=sentence):
        list(run_each(["a"], work))


def test_answers_come_once_for_every_document():
    assert sorted(run_each([f"{n}" for n in range(9)], str.upper)) == [f"{n}" for n in range(9)]


def test_markers_of_another_plan_are_refused(raw, tmp_path, capsys):
    """Objects of two plans in one dataset would be a mixture that no manifest describes."""
    stranger = tmp_path / "out" / "_work" / "0123456789abcdef" / "000000.json"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("{}")

    assert prepare_images(raw, tmp_path / "out") == 2
    assert "another plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [("missing", "does not exist"), ("empty", "holds no file"), ("foreign", "nothing to prepare"), ("broken", "no input became")],
)
def test_nothing_to_prepare_is_one_sentence(sources, sentence, tmp_path, capsys):
    """No traceback, exit 2, and no manifest."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "readme.txt").write_text("words")
    write_images(tmp_path / "made", count=2)
    (tmp_path / "broken").mkdir()
    shutil.copy(tmp_path / "made" / "well" / "cut.png", tmp_path / "broken")

    line = ["prepare", str(tmp_path / sources), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out"), "--json"]
    assert main(line) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "Traceback" not in message
    assert not (tmp_path / "out" / MANIFEST_PATH).exists()


def _refuses_a_changed_source(path: Path, line: list[str], capsys) -> None:
    """One bit of one source, whose size stays: the run must not go on with it."""
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(before[:-20] + bytes([before[-20] ^ 1]) + before[-19:])
    assert main(line) == 2
    assert "1 changed, 0 gone, 0 new, such as well/p001.png" in capsys.readouterr().err
    path.write_bytes(before)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_kill_minus_nine_in_the_middle_and_the_same_line_again(raw, tmp_path, capsys):
    """A driver that dies leaves whole objects and markers; the rest is done later and the bytes are those of a calm run."""
    write_images(tmp_path / "many", count=160)
    line = [
        "prepare",
        str(tmp_path / "many"),
        "--recipe",
        "xray-pseudo3d:tiny",
        "--set",
        "shard.max_samples=2",
        "--json",
        "--no-local",
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *line, "--out", str(tmp_path / "killed"), "--concurrency", "1"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("killed/_work/*/0*.json"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(tmp_path.glob("killed/_work/*/0*.json")))

    assert not (tmp_path / "killed" / MANIFEST_PATH).exists()
    assert 3 <= done < 81
    _refuses_a_changed_source(tmp_path / "many" / "well" / "p001.png", [*line, "--out", str(tmp_path / "killed")], capsys)
    assert main([*line, "--out", str(tmp_path / "killed")]) == 3
    assert main([*line, "--out", str(tmp_path / "calm")]) == 3
    assert (tmp_path / "killed" / MANIFEST_PATH).read_bytes() == (tmp_path / "calm" / MANIFEST_PATH).read_bytes()
    assert main(["verify", str(tmp_path / "killed"), "--json"]) == 0


def test_s3_in_and_s3_out_give_the_bytes_of_the_local_run(raw, images, volumes, s3_bucket, capsys):
    """Credentials and endpoint are arguments; the store is one that speaks the protocol."""
    store = ["--endpoint-url", s3_bucket.options.endpoint_url, "--access-key", "k", "--secret-key", "s"]
    bucket, xr, ct = (s3_bucket.at(path) for path in ("raw/images", "xr", "ct"))
    for path in sorted((raw / "images").rglob("*.*")):
        bucket.put(str(path.relative_to(raw / "images")), path.read_bytes())
    recipe = [
        "--recipe",
        "xray-pseudo3d:tiny",
        "--set",
        "shard.max_samples=3",
        "--test-fraction",
        "0.3",
        "--label",
        "folder",
        "--json",
    ]

    assert main(["prepare", bucket.url, *recipe, "--out", xr.url, *store]) == 3
    assert last_answer(capsys)["manifest_digest"] == manifest_of(images).digest
    assert main(["verify", xr.url, "--json", *store]) == 0
    assert main(["prepare", str(raw / "volumes"), *TINY_VOLUMES, "--out", ct.url, "--json", *store]) == 3
    capsys.readouterr()
    assert main(["verify", ct.url, "--json", *store]) == 0
    assert ct.read(MANIFEST_PATH) == (volumes / MANIFEST_PATH).read_bytes()
