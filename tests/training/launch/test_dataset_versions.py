"""Files that are added to a dataset while a run reads it: the run goes on with the version that it began with."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import crossdim
from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import publish_next_version, read_manifest
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.manifest import FileCounts, ObjectEntry
from crossdim.storage_schema.versions import table_part_path, version_path
from crossdim.training.data.dataset import open_dataset
from crossdim.training.data.fixed_batch import read_fixed_batches
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.run_config import read_run_config
from tests.training.published import images, publish


def _publish_half(data: Bucket) -> None:
    """A next version with half of the samples."""
    before = read_manifest(data)
    (part,) = before.with_role("catalog")
    table = pq.read_table(io.BytesIO(data.read(part.path))).slice(0, before.num_samples // 2)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    path, content = table_part_path("catalog", 0, "v2-0a1b2c3d"), buffer.getvalue()
    data.put(path, content)
    entry = ObjectEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), role="catalog")
    half = table.num_rows
    files = FileCounts(total=half, used=half, quarantined=0, ignored=0)
    objects = (entry, *before.with_role("shard"))
    publish_next_version(data, before, replace(before, num_samples=half, files=files, objects=objects), 2)


def _pretrain(run: Path, data: Bucket, *options: str) -> int:
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", data.url, "--out", str(run), "--workers", "0", "--json"]
    return main([*line, "--steps", "4", "--checkpoint-every", "1", "--set", "global_batch=4", *options])


def _losses(run: Path) -> list[object]:
    return [record["loss"] for record in read_metrics(Bucket(str(run)))]


class EndedError(BaseException):
    """Ends a run between two steps."""


@pytest.mark.integration
def test_a_run_goes_on_with_the_version_that_it_began_with_and_a_new_one_reads_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the last digit of the loss. Once that version is removed, the run says so."""
    data = Bucket(str(tmp_path / "xr"))
    publish(data, images(24), "xr")
    assert _pretrain(tmp_path / "whole", data) == 0
    after_step = AsyncCheckpointer.after_step

    def end(self: AsyncCheckpointer, record: StepRecord, request: Request) -> None:
        after_step(self, record, request)
        if record.step == 1:
            raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr(AsyncCheckpointer, "after_step", end)
        with pytest.raises(EndedError):
            _pretrain(tmp_path / "run", data)
    _publish_half(data)
    capsys.readouterr()
    assert _pretrain(tmp_path / "run", data) == 0

    assert f"{data.url} has a newer version; this run goes on with the one that it began with" in capsys.readouterr().err
    assert _losses(tmp_path / "run") == _losses(tmp_path / "whole")
    assert _pretrain(tmp_path / "new", data) == 0
    (used,) = read_run_config(Bucket(str(tmp_path / "new"))).identity["datasets"]
    assert used["manifest"] == read_manifest(data).digest != read_manifest(data, 1).digest
    data.delete(version_path(1))
    assert _pretrain(tmp_path / "run", data) == 2
    assert "the version that it began with was removed (crossdim gc)" in capsys.readouterr().err


@pytest.mark.integration
def test_a_version_that_is_asked_for_is_trained_on_kept_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the losses of a run before there was another; a resume needs no option, and refuses another version."""
    data = Bucket(str(tmp_path / "xr"))
    publish(data, images(24), "xr")
    assert _pretrain(tmp_path / "before", data) == 0
    _publish_half(data)
    asked = ("--data-version", f"{data.url}=1")
    assert _pretrain(tmp_path / "run", data, *asked) == 0
    assert _losses(tmp_path / "run") == _losses(tmp_path / "before")
    assert _pretrain(tmp_path / "run", data) == 0
    capsys.readouterr()
    assert _pretrain(tmp_path / "run", data, "--data-version", f"{data.url}=2") == 2
    assert "holds another run" in capsys.readouterr().err
    line = ["evaluate", str(tmp_path / "run"), "--data", data.url, "--folds", "2", "--baselines", "1", "--json"]
    sizes = []
    for options in (asked, ()):
        assert main([*line, *options]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["results"][0]["num_samples"])
    assert sizes == [24, 12]


def test_fixed_batches_are_of_the_version_that_a_run_began_with(tmp_path: Path) -> None:
    data = Bucket(str(tmp_path / "xr"))
    publish(data, images(24), "xr")
    began_with = open_dataset(data)

    def read_keys() -> list[str]:
        (batch,) = read_fixed_batches([began_with], lambda sample, rng: {"view": rng.random(1)}, 1, joint=False)
        return batch.keys

    before = read_keys()
    assert len(before) == 24
    _publish_half(data)
    assert read_keys() == before


def test_a_version_is_opened_by_its_number(tmp_path: Path) -> None:
    data = Bucket(str(tmp_path / "xr"))
    publish(data, images(24), "xr")
    assert len(crossdim.open(data.url, split=None, version=1)) == 24
    _publish_half(data)

    found: list[Any] = [crossdim.open(data.url, split=None, version=number) for number in (1, 2, None)]
    assert list(map(len, found)) == [24, 12, 12]
    with pytest.raises(UsageError, match=r"has no version 3; there is version 1, 2"):
        crossdim.open(data.url, version=3)
