"""Runs and datasets under names that a pattern, a weight or a path could be mistaken for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.training.run_dir.checkpoint_listing import HASHES
from crossdim.training.run_dir.layout import CONFIG
from tests.training.published import images, publish


@pytest.fixture
def lab(s3_endpoint: str, s3_client: Any) -> Bucket:
    """An S3 bucket."""
    name = f"lab-{uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=name)
    return Bucket(f"s3://{name}", StoreOptions(endpoint_url=s3_endpoint, access_key="k", secret_key="s", region="us-east-1"))


def pretrain(data: str, out: str, *more: str, steps: int = 2, store: Bucket | None = None) -> int:
    """A short run in this process."""
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", data, "--out", out, "--workers", "0", "--json"]
    if store is not None:
        line += [
            "--endpoint-url",
            str(store.options.endpoint_url),
            "--access-key",
            "k",
            "--secret-key",
            "s",
            "--region",
            "us-east-1",
        ]
    return main([*line, "--steps", str(steps), "--threads", "1", "--set", "global_batch=3", *more])


def kept(run: Bucket) -> list[str]:
    """The checkpoints of a run."""
    return [found.path.split("/")[1] for found in run.list_objects() if found.path.endswith(HASHES)]


@pytest.mark.parametrize("name", ["exp[7]", "exp?", "ex*", "{exp7,x}"])
@pytest.mark.integration
def test_a_run_prunes_its_own_checkpoints_only(name: str, lab: Bucket, image_data: Bucket) -> None:
    """Whatever its name would match as a pattern."""
    assert pretrain(image_data.url, f"{lab.url}/exp7", "--checkpoint-every", "1", "--keep", "5", steps=3, store=lab) == 0
    before = {found.path: found.version for found in lab.at("exp7").list_objects()}
    assert pretrain(image_data.url, f"{lab.url}/{name}", "--checkpoint-every", "1", "--keep", "1", steps=3, store=lab) == 0

    assert {found.path: found.version for found in lab.at("exp7").list_objects()} == before
    assert kept(lab.at("exp7")) == [f"step-0000000{step}" for step in (1, 2, 3)]
    assert kept(lab.at(name)) == ["step-00000003"]


@pytest.mark.parametrize("folder", ["set//one", "set [1] #2 %20 *?", "a/./b"])
@pytest.mark.integration
def test_a_dataset_below_any_prefix_is_trained_on(folder: str, lab: Bucket, tmp_path: Path) -> None:
    """Empty names, and names that URLs and patterns would read as more."""
    publish(lab.at(folder), images(6), "flat")

    assert pretrain(f"{lab.url}/{folder}/", str(tmp_path / "run"), store=lab) == 0


@pytest.mark.integration
def test_a_folder_whose_name_ends_like_a_weight_is_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With both there, the command says both readings; each has a spelling."""
    for name, seed in (("set", 0), ("set:2", 1), ("2026-05-01T10:30", 2)):
        publish(Bucket(str(tmp_path / name)), images(6, seed), name.replace(":", "-"))

    def used(argument: str) -> str:
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        assert pretrain(f"{tmp_path}/{argument}", str(run)) == 0
        return Bucket(str(run)).read(CONFIG).decode()

    assert '"name":"2026-05-01T10-30"' in used("2026-05-01T10:30")
    assert pretrain(f"{tmp_path}/set:2", str(tmp_path / "run")) == 1
    said = capsys.readouterr().err
    assert f"the dataset {tmp_path}/set:2, or the dataset {tmp_path}/set with weight 2" in said
    assert '"name":"set-2"' in used("set:2/")
    assert '"name":"set-2"' in used("set:2:1")
    assert '"name":"set"' in used("set/:2")
    (tmp_path / "set").rename(tmp_path / "other")
    assert '"name":"set-2"' in used("set:2")


def test_a_run_on_a_dataset_whose_name_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such names come from old archives; they are written and printed escaped."""
    data, run = (f"{tmp_path}/{os.fsdecode(name)}" for name in (b"M\xfcller", b"run\xff"))
    publish(Bucket(data), images(6), "flat")

    assert pretrain(data, run) == 0
    assert main(["status", run]) == 0
    assert r"run\xff" in capsys.readouterr().out
    assert rf"{tmp_path}/M\xfcller" in json.loads(Bucket(run).read(CONFIG))["sources"]
