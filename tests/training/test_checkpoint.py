"""Checkpoints: there or not there, believed only with their hash, and never a silent start from zero."""

from __future__ import annotations

import logging

import pytest
import torch

from foundation.bucket import Bucket
from storage_schema.errors import StorageError
from training import checkpoint
from training.checkpoint import Saving


def _state(step: int) -> checkpoint.State:
    weights = {"w": torch.full((3,), float(step))}
    return checkpoint.State(
        step=step, position=step * 4, identity={"config": {"steps": 9}}, model=weights, optimizer={"state": {}}
    )


@pytest.fixture
def run(tmp_path: object) -> Bucket:
    return Bucket(f"{tmp_path}/run")


def test_what_is_saved_is_loaded(run: Bucket) -> None:
    assert checkpoint.load(run) is None
    checkpoint.save(run, _state(10), Saving(last=3))
    found = checkpoint.load(run)
    assert found is not None
    assert (found.step, found.position, found.identity) == (10, 40, {"config": {"steps": 9}})
    assert torch.equal(found.model["w"], torch.full((3,), 10.0))


def test_only_the_newest_are_kept(run: Bucket) -> None:
    for step in range(1, 6):
        checkpoint.save(run, _state(step), Saving(last=2))
    assert checkpoint.complete(run) == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize("harm", ["flipped", "cut", "no hashes", "half hashes", "gone"])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(run: Bucket, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each is a moment at which a save or a disk may have stopped; the one before must carry on."""
    checkpoint.save(run, _state(1), Saving(last=3))
    checkpoint.save(run, _state(2), Saving(last=3))
    folder = "checkpoints/step-00000002"
    data = run.read(f"{folder}/state.pt")
    if harm == "flipped":
        run.put(f"{folder}/state.pt", data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif harm == "cut":
        run.put(f"{folder}/state.pt", data[: len(data) // 2])
    elif harm == "no hashes":
        run.delete(f"{folder}/hashes.json")
    elif harm == "half hashes":
        run.put(f"{folder}/hashes.json", b'{"state.pt": "12')
    else:
        run.delete(f"{folder}/state.pt")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.load(run)
    assert found is not None
    assert found.step == 1
    assert harm == "no hashes" or "is passed over" in caplog.text


def test_a_run_never_starts_from_zero_by_itself(run: Bucket) -> None:
    checkpoint.save(run, _state(1), Saving(last=1))
    run.put("checkpoints/step-00000001/state.pt", b"")
    with pytest.raises(StorageError, match=r"none of .* is whole; restore one"):
        checkpoint.load(run)


def test_a_checkpoint_with_code_in_it_is_not_run(run: Bucket) -> None:
    """weights_only: a file that somebody else wrote is data and no program."""
    import hashlib
    import io
    import json

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("this must not run",))

    buffer = io.BytesIO()
    torch.save({"step": Code()}, buffer)
    checkpoint.save(run, _state(1), Saving(last=3))
    run.put("checkpoints/step-00000002/state.pt", buffer.getvalue())
    run.put(
        "checkpoints/step-00000002/hashes.json", json.dumps({"state.pt": hashlib.sha256(buffer.getvalue()).hexdigest()}).encode()
    )
    found = checkpoint.load(run)
    assert found is not None
    assert found.step == 1
