"""Run folders whose files are cut, empty, garbage or of another shape: every verb answers, and the run goes on to its end.

The run is one of six steps that stopped after four of them were saved. Resumed, it must reach the losses of the run that nobody
stopped, bit for bit, or refuse with a sentence that says what to do.
"""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks.flip_datasets import publish
from benchmarks.flip_runs import Run
from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.data.range_reader import LocalRangeReader
from crossdim.training.run_dir import checkpoint, layout
from crossdim.training.run_dir.events import list_events, read_event
from crossdim.training.run_dir.layout import CONFIG, checkpoint_name
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.run_config import read_run_config
from tests.training.published import superpatches

DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "null bytes": b"\0" * 200,
    "not UTF-8": b"\xff\xfe\x80",
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "a text": b'"step-00000002"',
    "deep": b"[" * 99_999,
    "wrong types": b'{"step": "2", "loss": null, "time_s": [], "text": 3, "identity": 4, "state.pt": 5, "in_vain": "6"}',
    "negative": b'{"step": -2, "loss": -1e308, "time_s": -1, "workers": -3, "in_vain": -4, "total": -5}',
    "huge": b'{"step": 1' + b"0" * 400 + b', "loss": 1e999, "time_s": 1e300, "in_vain": 99999999999999999999}',
    "not a number": b'{"step": NaN, "loss": NaN, "time_s": Infinity, "step_s": NaN, "in_vain": NaN}',
    "somebody else's": b'{"model_type": "vit"}',
}
NEWEST = f"{layout.CHECKPOINTS}/{checkpoint_name(4)}"
FILES = (CONFIG, layout.LATEST, f"{NEWEST}/{layout.HASHES}", f"{NEWEST}/{layout.STATE}", "progress.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and ``whole`` and ``stopped`` runs on it."""
    folder = tmp_path_factory.mktemp("damaged")
    publish(Bucket(str(folder / "superpatch")), superpatches(3, side=16))
    run = Run(folder)
    shutil.copytree(run.bucket.root, folder / "stopped")
    shutil.rmtree(folder / "stopped" / layout.CHECKPOINTS / checkpoint_name(6))
    return folder


@pytest.fixture
def stopped(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "stopped", tmp_path / "run")
    return tmp_path / "run"


def _resumed(made: Path, run: Path) -> int:
    settings = ("steps=6", "global_batch=2", "method.backbone.widths=[2,2,4]", "method.crops.solid_side=16")
    chosen = [part for setting in settings for part in ("--set", setting)]
    data = ("--data", str(made / "superpatch"), "--workers", "0", "--checkpoint-every", "2", "--json")
    return main(["pretrain", "--recipe", "ae:tiny", *chosen, *data, "--out", str(run)])


def _losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_metrics(Bucket(str(run)))}


def _asked(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["status", str(run)])
    found = capsys.readouterr()
    assert "fault of crossdim" not in found.err
    return code, found.out + found.err


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("path", [*FILES, "metrics", "events"])
@pytest.mark.integration
def test_a_run_with_a_damaged_file_is_told_of_and_goes_on(
    path: str, damage: str, made: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in [stopped / path] if path in FILES else sorted((stopped / path).iterdir()):
        file.write_bytes(DAMAGES[damage])
    code, message = _asked(stopped, capsys)
    assert (code == 2, "can be read" in message) == (path == CONFIG,) * 2
    assert _resumed(made, stopped) == 0, capsys.readouterr().err
    whole = _losses(made / "run")
    assert {step: loss for step, loss in _losses(stopped).items() if step >= 4} == {step: whole[step] for step in (4, 5)}
    run, kinds = Bucket(str(stopped)), [event.kind for event in list_events(Bucket(str(stopped)))]
    state = checkpoint.load(run)
    assert state is not None
    assert state.step == 6
    one, other = read_run_config(run), read_run_config(Bucket(str(made / "run")))
    assert (one.identity, one.sources) == (other.identity, other.sources)
    assert ("damaged" in kinds) == (path in (CONFIG, "metrics"))
    assert ("passed-over" in kinds) == (NEWEST in path)
    assert _asked(stopped, capsys)[0] == 0


def test_everything_damaged_at_once_but_one_checkpoint_is_gone_on_from(
    made: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = f"{layout.CHECKPOINTS}/{checkpoint_name(2)}"
    for stored in Bucket(str(stopped)).list_objects():
        if not stored.path.startswith(kept):
            (stopped / stored.path).write_bytes(b"\0garbage\xff")
    assert _resumed(made, stopped) == 0, capsys.readouterr().err
    whole = _losses(made / "run")
    assert _losses(stopped) == {step: whole[step] for step in range(2, 6)}


def test_a_run_without_recipe_on_the_line_takes_its_configuration_from_the_checkpoint(
    made: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``pretrain --data ... --out RUN`` reads ``config.json`` before anything else."""
    document = json.loads((stopped / CONFIG).read_bytes())
    document["identity"]["config"]["seed"] += 1
    (stopped / CONFIG).write_text(json.dumps(document))
    line = ["pretrain", "--data", str(made / "superpatch"), "--out", str(stopped), "--workers", "0", "--json"]
    assert main(line) == 0, capsys.readouterr().err
    assert _losses(stopped) == _losses(made / "run")


def test_a_folder_with_somebody_elses_configuration_is_left_alone(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CONFIG).write_bytes(b'{"model_type": "vit"}')
    assert _resumed(made, tmp_path) == 2
    assert "does not describe a run of crossdim" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG]
    assert (tmp_path / CONFIG).read_bytes() == b'{"model_type": "vit"}'


def test_metrics_that_are_damaged_stand_in_the_notes_of_the_report(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(Bucket(str(tmp_path / "larger")), superpatches(3, side=32))
    shutil.copytree(made / "run", tmp_path / "run")
    segment = tmp_path / "run" / "metrics" / "00000002.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"loss": ', b'"loss": 1', 1))
    capsys.readouterr()
    line = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "larger"), "--baselines", "1", "--folds", "2"]
    assert main(line) == 0
    assert "the line of 1 step is damaged or missing" in capsys.readouterr().out
    assert "the line of 1 step is damaged or missing" in (tmp_path / "run" / "report.html").read_text()


class _Flipping(LocalRangeReader):
    """Every answer has a flipped bit, and is right when the same thread asks again, as behind a bad cable."""

    wrong: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self._thread = threading.local()

    def get(self, path: str, offset: int, length: int) -> bytes:
        data = super().get(path, offset, length)
        again, self._thread.asked = getattr(self._thread, "asked", None) == (path, offset), (path, offset)
        if again:
            self._thread.asked = None
            return data
        self.wrong.append((path, offset))
        return data[:-30] + bytes([data[-30] ^ 4]) + data[-29:]


def test_samples_that_came_wrong_once_are_counted_in_events_and_change_no_loss(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reading is no secret: the run's events count every one, in few notes, and status tells of them."""
    monkeypatch.setattr("crossdim.training.data.loader.open_range_reader", _Flipping)
    assert _resumed(made, tmp_path) == 0, capsys.readouterr().err
    assert _losses(tmp_path) == _losses(made / "run")
    run = Bucket(str(tmp_path))
    notes = [read_event(run, event) for event in list_events(run) if event.kind == "reread"]
    assert sum(note["samples"] for note in notes) == len(_Flipping.wrong) == 12
    assert len(notes) <= 4
    assert all("read once more" in note["text"] for note in notes)
    assert "reread at step 6, 20" in _asked(tmp_path, capsys)[1]
