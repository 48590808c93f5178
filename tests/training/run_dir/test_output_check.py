"""Nothing is written into a dataset or among other people's files, by any verb that writes a run, a report or a study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.storage_schema.errors import UsageError
from crossdim.training.launch.validate import validate_run
from crossdim.training.launch.worker import Source
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.output_check import check_run_folder
from tests.training.published import images, publish

GOLDEN_RUN = Path(__file__).parents[2] / "golden/version_1/run"


def _line(verb: str, out: Path | str, data: str) -> list[str]:
    recipe_of = ["--recipe", "cdssl-p3d:tiny", "--data", data, "--out", str(out), "--steps", "1"]
    return {
        "pretrain": ["pretrain", *recipe_of, "--workers", "0"],
        "plan": ["pretrain", *recipe_of, "--workers", "0", "--plan"],
        "study": ["study", "pseudo3d", *recipe_of],
        "evaluate": ["evaluate", str(out), "--data", data],
    }[verb]


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


VERBS = ("pretrain", "plan", "study", "evaluate")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("files", [("1.png", "2.png"), ("config.json", "model.bin"), ("a/b/scan.nii.gz",), ("manifest.json",)])
def test_a_folder_with_other_files_is_refused_and_left_as_it_was(
    verb: str, files: tuple[str, ...], image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    before = _tree(tmp_path)
    assert main(_line(verb, tmp_path, image_data.url)) == 1
    error = capsys.readouterr().err
    number = "1 file that is" if len(files) == 1 else f"{len(files)} files that are"
    kind, option = ("study" if verb == "study" else "run"), ("RUN" if verb == "evaluate" else "--out")
    assert f"error: {option} {tmp_path} holds {number} no {kind} of crossdim, such as {files[0]}; name " in error
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["", "inside", "linked", "linked/inside"])
def test_a_dataset_that_is_read_is_not_written_into(
    verb: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "xr"
    publish(Bucket(str(dataset)), images(4), "xr")
    (tmp_path / "linked").symlink_to(dataset)
    before = _tree(dataset)
    out = tmp_path / place if place.startswith("linked") else dataset / place
    assert main(_line(verb, out, str(dataset))) == 1
    assert f"lies inside the dataset {dataset}, where nothing may be written" in capsys.readouterr().err
    assert _tree(dataset) == before


def test_datasets_in_a_store_are_not_written_into(s3_endpoint: str, s3_client: Any) -> None:
    s3_client.create_bucket(Bucket="output-folders")
    options = StoreOptions(endpoint_url=s3_endpoint, access_key="testing", secret_key="testing")
    dataset = Bucket("s3://output-folders/xr", options)
    publish(dataset, images(4), "xr")
    source, config = Source(bucket=dataset, weight=1.0), recipe("cdssl-p3d:tiny")
    for url in ("s3://output-folders/xr", "s3a://output-folders/xr/run"):
        with pytest.raises(UsageError, match="lies inside the dataset s3://output-folders/xr"):
            validate_run(config, [source], Bucket(url, options), 0, use_gpu=False)
    with pytest.raises(UsageError, match="files that are no run of crossdim, such as xr/catalog"):
        validate_run(config, [source], Bucket("s3://output-folders", options), 0, use_gpu=False)
    assert validate_run(config, [source], Bucket("s3://output-folders/xr2", options), 0, use_gpu=False).damage is None


def test_a_folder_that_is_empty_or_a_run_is_taken(tmp_path: Path) -> None:
    """A run of format version 1, one killed before its first checkpoint, one whose configuration is lost or damaged."""
    check_run_folder(Bucket(str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.DS_Store").write_text("x")
    check_run_folder(Bucket(str(tmp_path / "empty")))
    check_run_folder(Bucket(str(GOLDEN_RUN)))
    for name, kept in (("begun", ["config.json"]), ("started", ["config.json", "events"]), ("lost", ["checkpoints"])):
        for part in kept:
            source, target = GOLDEN_RUN / part, tmp_path / name / part
            target.parent.mkdir(exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        check_run_folder(Bucket(str(tmp_path / name)))
    (tmp_path / "started/config.json").write_text("damaged")
    check_run_folder(Bucket(str(tmp_path / "started")))


def test_a_run_goes_on_beside_files_that_were_added_to_it(image_data: Bucket, tmp_path: Path) -> None:
    line = [*_line("pretrain", tmp_path / "run", image_data.url), "--set", "global_batch=4", "--json"]
    assert main(line) == 0
    (tmp_path / "run/notes.txt").write_text("mine")
    assert main(line) == 0


def test_nothing_is_written_into_a_dataset_or_a_run_that_others_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it is not among the data of the run; a folder with another program's manifest.json is any folder."""
    data, other = Bucket(str(tmp_path / "data")), Bucket(str(tmp_path / "other"))
    for bucket in (data, other):
        publish(bucket, images(8), "flat")
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", data.url, "--steps", "1", "--workers", "0", "--json"]
    assert main([*line, "--out", str(tmp_path / "other" / "deep" / "run")]) == 1
    assert f"lies inside the dataset {tmp_path / 'other'}; name a folder beside it" in capsys.readouterr().err
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "a web app"}')
    assert main([*line, "--out", str(tmp_path / "web" / "run")]) == 0
    assert main([*line, "--out", str(tmp_path / "web" / "run" / "sub")]) == 1
    assert f"lies inside the run {tmp_path / 'web' / 'run'}" in capsys.readouterr().err
    raw = tmp_path / "raw"
    raw.mkdir()
    preparation = ["prepare", str(raw), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "other" / "sub"), "--local"]
    assert main(preparation) == 1
    assert f"lies inside the dataset {tmp_path / 'other'}" in capsys.readouterr().err
    assert not (tmp_path / "other" / "sub").exists()
