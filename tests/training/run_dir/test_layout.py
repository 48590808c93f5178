"""The layout: everything that a run writes has a name in it, and nothing else has."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.layout import EventName

VERSION_1 = Path(__file__).parents[2] / "golden" / "version_1" / "run"


def _paths(folder: Path) -> list[str]:
    return [stored.path for stored in Bucket(str(folder)).list_objects()]


def _strange(folder: Path) -> list[str]:
    return [path for path in _paths(folder) if not layout.is_in_layout(path)]


@pytest.mark.integration
@pytest.mark.parametrize("sharded", ["false", "true"])
def test_a_real_run_has_no_other_names(sharded: str, image_data: Bucket, tmp_path: Path) -> None:
    """Trained, resumed, and evaluated; and each name of the layout but those of Ray is there."""
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", image_data.url, "--out", str(tmp_path), "--workers", "0", "--json"]
    assert main([*line, "--steps", "3", "--checkpoint-every", "2", "--set", f"compute.sharded={sharded}"]) == 0
    assert main(["evaluate", str(tmp_path), "--data", image_data.url, "--baselines", "1", "--json"]) == 0
    found = _paths(tmp_path)
    assert _strange(tmp_path) == []
    newest = f"{layout.CHECKPOINTS}/{layout.checkpoint_name(3)}"
    single = (layout.CONFIG, layout.ENCODER, layout.PROGRESS, layout.REPORT, layout.EVALUATION, layout.LATEST)
    segments = (layout.metrics_path(0), layout.metrics_path(2), layout.tensorboard_path(0))
    assert {*single, *segments, f"{newest}/{layout.STATE}", f"{newest}/{layout.HASHES}"} <= set(found)
    assert (f"{layout.parts_path(3)}/{layout.SHARD_INDEX}" in found) == (sharded == "true")
    kinds = [name.kind for path in found if (name := layout.parse_event_path(path))]
    assert sorted(kinds) == ["checkpoint", "checkpoint", "end", "start"]


@pytest.mark.ray
@pytest.mark.parametrize("place", ["folder", "store"])
def test_a_real_run_on_ray_has_no_other_names(
    place: str, image_data: Bucket, tmp_path: Path, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything in it can be removed, too."""
    run = Bucket(str(tmp_path / "run")) if place == "folder" else s3_bucket.at("run")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    store = ["--endpoint-url", str(s3_bucket.options.endpoint_url), "--region", "us-east-1"]
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", image_data.url, "--out", run.url, "--workers", "1", "--json", *store]
    assert main([*line, "--steps", "2", "--checkpoint-every", "1"]) == 0
    found = [stored.path for stored in run.list_objects(problems=True, temporary=True)]
    assert [path for path in found if not layout.is_in_layout(path)] == []
    assert {layout.RAY_REQUESTER, layout.RAY_MARKER} <= set(found)
    assert main(["runs", "rm", run.url, "--yes", *store]) == 0
    assert not run.exists()


def test_a_run_of_the_first_release_has_no_other_names() -> None:
    assert _strange(VERSION_1) == []


@pytest.mark.parametrize(
    "path",
    [
        "notes.txt",
        ".DS_Store",
        "checkpoints/step-3/state.pt",
        "checkpoints/step-00000003/weights.pt",
        "checkpoints/step-00000003/parts/notes.bin",
        "metrics/first.jsonl",
        "metrics/00000003",
        "tensorboard/00000003.jsonl",
        "events/notes.txt",
        "encoder.pt.bak",
        "deeper/config.json",
        "ray/notes.txt",
        "ray/deeper/config.json",
        "ray/requester/x",
    ],
)
def test_other_names_are_not_in_the_layout(path: str) -> None:
    assert not layout.is_in_layout(path)


def test_names_are_read_as_they_were_made() -> None:
    event = EventName(7, "rank0.5f3a9c1d", "passed-over", 300)
    assert layout.parse_event_path(layout.event_path(event)) == event
    assert layout.checkpoint_step(layout.checkpoint_name(300)) == 300
    assert layout.checkpoint_of(layout.parts_path(300)) == layout.checkpoint_name(300)
    assert [layout.first_step_of(path(300)) for path in (layout.metrics_path, layout.tensorboard_path)] == [300, 300]
    assert layout.is_in_layout(f"{layout.parts_path(1)}/{layout.shard_name(2, 3, whole=False)}")
