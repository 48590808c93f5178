"""A checkpoint whose hashes are right and whose content does not fit is passed over by all that read one, with a sentence."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.checkpoint_contents import check_contents
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.events import list_events, read_event

Document = dict[str, Any]
NEWEST = "checkpoints/step-00000003"


@pytest.fixture(scope="module")
def trained(volume_data: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 3 steps of 4, that was then cut off."""
    run = tmp_path_factory.mktemp("contents") / "run"
    assert _pretrain(run, volume_data) == 0
    shutil.rmtree(run / "checkpoints/step-00000004")
    return run


def _pretrain(run: Path, data: Bucket) -> int:
    line = [
        "pretrain",
        "--recipe",
        "ae:tiny",
        "--data",
        data.url,
        "--out",
        str(run),
        "--workers",
        "0",
        "--json",
        "--threads",
        "1",
    ]
    small = ["method.backbone.widths=[2,2,4]", "method.crops.solid_side=16", "global_batch=2", "compute.ema=0.9"]
    sets = [text for setting in small for text in ("--set", setting)]
    return main([*line, "--steps", "4", "--checkpoint-every", "1", "--keep", "9", *sets])


def _document(run: Path) -> Document:
    found: Document = torch.load(run / NEWEST / "state.pt", weights_only=True)
    return found


def _first(document: Document, part: str = "model") -> str:
    return str(next(name for name, value in document[part].items() if value.ndim))


def _store(run: Path, document: Any, step: int = 3) -> None:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    folder = run / f"checkpoints/step-{step:08d}"
    folder.mkdir(exist_ok=True)
    (folder / "state.pt").write_bytes(buffer.getvalue())
    (folder / "hashes.json").write_text(json.dumps({"state.pt": hashlib.sha256(buffer.getvalue()).hexdigest()}))


def _replace(part: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Document], None]:
    def damage(document: Document) -> None:
        name = _first(document, part)
        document[part][name] = change(document[part][name])

    return damage


def _state(name: str, value: Any) -> Callable[[Document], None]:
    return lambda document: document["optimizer"]["state"][0].update({name: value})


DAMAGES: dict[str, Callable[[Document], object]] = {
    "key gone": lambda d: d["model"].pop(_first(d)),
    "key more": lambda d: d["model"].update(more=torch.zeros(1)),
    "shape": _replace("model", lambda t: torch.zeros(3)),
    "huge": _replace("model", lambda t: torch.zeros(1).expand(10**6, 10**6)),
    "text": _replace("model", lambda t: "x"),
    "none": _replace("model", lambda t: None),
    "double": _replace("model", lambda t: t.double()),
    "complex": _replace("model", lambda t: t.to(torch.complex64)),
    "sparse": _replace("model", lambda t: t.to_sparse()),
    "nan": _replace("model", lambda t: t * float("nan")),
    "infinite": _replace("model", lambda t: t + float("inf")),
    "average gone": lambda d: d.update(average=None),
    "average other": lambda d: d.update(average={"module.x": torch.zeros(1)}),
    "average nan": _replace("average", lambda t: t * float("nan")),
    "optimizer empty": lambda d: d.update(optimizer={}),
    "groups empty": lambda d: d["optimizer"].update(param_groups=[]),
    "groups text": lambda d: d["optimizer"].update(param_groups="x"),
    "groups of texts": lambda d: d["optimizer"].update(param_groups=["x"]),
    "states empty": lambda d: d["optimizer"].update(state={}),
    "states list": lambda d: d["optimizer"].update(state=[]),
    "one state gone": lambda d: d["optimizer"]["state"].pop(0),
    "one state more": lambda d: d["optimizer"]["state"].update({999: d["optimizer"]["state"][0]}),
    "state text": lambda d: d["optimizer"]["state"].update({0: "x"}),
    "state empty": lambda d: d["optimizer"]["state"].update({0: {}}),
    "state shape": _state("exp_avg", torch.zeros(1)),
    "state nan": lambda d: d["optimizer"]["state"][0]["exp_avg"].fill_(float("nan")),
    "state step": _state("step", "x"),
    "identity empty": lambda d: d.update(identity={}),
    "config none": lambda d: d["identity"].update(config=None),
    "config other": lambda d: d["identity"]["config"].update(zzz=1),
    "datasets none": lambda d: d["identity"].update(datasets=None),
    "dataset text": lambda d: d["identity"].update(datasets=["x"]),
    "position far": lambda d: d.update(position=10**6),
    "position below 0": lambda d: d.update(position=-6),
    "position true": lambda d: d.update(position=True),
    "step true": lambda d: d.update(step=True),
    "step of another folder": lambda d: d.update(step=2, position=4),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_passed_over(damage: str, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    document = copy.deepcopy(_document(run))
    DAMAGES[damage](document)
    _store(run, document)
    passed_over: list[str] = []
    found = checkpoint.load(Bucket(str(run)), lambda name, reason: passed_over.append(name), check=check_contents)
    assert (found.step if found else None, passed_over) == (2, ["step-00000003"])


def test_what_was_written_fits(trained: Path) -> None:
    """So that each damage above is what is refused."""
    found = checkpoint.load(Bucket(str(trained)), lambda name, reason: pytest.fail(reason), check=check_contents)
    assert found is not None
    assert found.step == 3


@pytest.mark.parametrize("step", [5, 99999999])
def test_a_step_beyond_the_run_is_passed_over(step: int, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    _store(run, _document(run) | {"step": step, "position": step * 2}, step)
    found = checkpoint.load(Bucket(str(run)), check=check_contents)
    assert found is not None
    assert found.step == 3


@pytest.mark.integration
def test_a_run_goes_on_from_the_one_before_and_says_so(
    trained: Path, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resume and evaluation alike; and the run ends as it would have."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    document = _document(run)
    document["model"].pop(_first(document))
    _store(run, document)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", volume_data.url, "--baselines", "1", "--folds", "2", "--json"]) == 0
    assert _pretrain(run, volume_data) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["resumed_at"] == 2
    passed_over = [read_event(Bucket(str(run)), event) for event in list_events(Bucket(str(run))) if event.kind == "passed-over"]
    assert any("model has not the names of the network" in event["text"] for event in passed_over)


def test_where_none_fits_a_sentence_says_what_to_do(
    trained: Path, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for step in (1, 2, 3):
        _store(run, _document(run) | {"step": step, "position": step * 2, "optimizer": {}}, step)
    for code in (
        _pretrain(run, volume_data),
        main(["evaluate", str(run), "--data", volume_data.url, "--baselines", "1", "--json"]),
    ):
        assert code == 2
    error = capsys.readouterr().err
    assert error.count("or delete") == 2
    assert "Traceback" not in error
    shutil.rmtree(run / "checkpoints")
    assert _pretrain(run, volume_data) == 0


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_average_is_there_where_the_configuration_keeps_one(ema: float | None, trained: Path) -> None:
    document = _document(trained)
    document["identity"]["config"]["compute"]["ema"] = None if ema else 0.9
    document["average"] = document["average"] if ema else None
    with pytest.raises(StorageError, match="average, and compute"):
        check_contents(CheckpointState(**document))


def test_a_state_of_step_0_needs_no_optimizer_state(trained: Path) -> None:
    """None was stepped yet."""
    document = _document(trained)
    document["optimizer"]["state"] = {}
    check_contents(CheckpointState(**document | {"step": 0, "position": 0}))
