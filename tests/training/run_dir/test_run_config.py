"""The configuration in a run's folder: a damaged one is rebuilt from a checkpoint, and somebody else's is never written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import DocumentError, RunError, StorageError
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_dir.run_config import (
    RunConfig,
    parse_run_config,
    read_run_config,
    write_run_config,
)
from crossdim.training.run_dir.run_identity import StoredIdentity, read_identity

IDENTITY = {
    "config": {"steps": 9, "seed": 3},
    "weights": [1, 2],
    "datasets": [{"name": "xr", "manifest": "ab", "preprocessing": "cd"}],
}
OTHER = IDENTITY | {"weights": [2, 1]}


@pytest.fixture
def run(tmp_path: Path) -> Bucket:
    return Bucket(str(tmp_path / "run"))


def _save(run: Bucket, identity: dict[str, object] = IDENTITY) -> None:
    state = CheckpointState(step=4, position=16, identity=identity, model={"w": torch.zeros(3)}, optimizer={"state": {}})
    checkpoint.save(run, state, Saving())


def _old(identity: dict[str, object]) -> bytes:
    return json.dumps({"identity": identity, "sources": ["/data/xr"]}).encode()


def test_what_is_written_is_read(run: Bucket) -> None:
    write_run_config(run, IDENTITY, ["s3://lab/xr"])
    assert read_run_config(run) == RunConfig(identity=IDENTITY, sources=("s3://lab/xr",))
    assert read_identity(run) == StoredIdentity(identity=IDENTITY)


def test_a_folder_without_one_holds_no_run(run: Bucket) -> None:
    assert read_identity(run) is None


def test_no_bit_of_it_changes_unseen() -> None:
    """All bits: refused, or the same identity."""
    data = RunConfig(identity=IDENTITY, sources=("/data/xr",)).to_bytes()
    same = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = parse_run_config(bytes(changed), "changed")
        except DocumentError:
            continue
        same += 1
        assert found.identity == IDENTITY
    assert same < 200  # bits of the word digest itself, and of white space


DAMAGE = [
    b"",
    b"{",
    b"\0" * 99,
    b"[]",
    b"null",
    b"7",
    b"\xff\xfe",
    b'{"identity": []}',
    b'{"identity": {"config": 3}}',
    b"[" * 99_999,
]


@pytest.mark.parametrize("data", [*DAMAGE, _old(IDENTITY)[:-9], RunConfig(identity=OTHER).to_bytes().replace(b"[2,1]", b"[2,2]")])
def test_a_damaged_one_is_rebuilt_from_the_newest_checkpoint(data: bytes, run: Bucket) -> None:
    _save(run)
    run.put(CONFIG, data)
    found = read_identity(run)
    assert found is not None
    assert found.identity == IDENTITY
    assert str(found.damage).endswith("it is rebuilt from the checkpoint of step 4")


@pytest.mark.parametrize("data", DAMAGE)
def test_a_damaged_one_without_a_checkpoint_is_a_sentence_that_says_what_to_do(data: bytes, run: Bucket) -> None:
    run.put(CONFIG, data)
    with pytest.raises(RunError, match="There is no checkpoint to rebuild it from: choose another --out"):
        read_identity(run)


def test_an_older_one_is_held_against_the_checkpoint(run: Bucket) -> None:
    """It has no digest, so a flipped digit in it would be another run; the checkpoint has a hash."""
    run.put(CONFIG, _old(OTHER))
    assert read_identity(run) == StoredIdentity(identity=OTHER)
    _save(run)
    found = read_identity(run)
    assert found is not None
    assert (found.identity, "is not what the checkpoint of step 4 says" in str(found.damage)) == (IDENTITY, True)
    run.put(CONFIG, _old(IDENTITY))
    assert read_identity(run) == StoredIdentity(identity=IDENTITY)


def test_a_sealed_one_is_believed_before_any_checkpoint(run: Bucket) -> None:
    """A checkpoint of another run in its folder is then refused by whoever resumes."""
    _save(run, OTHER)
    write_run_config(run, IDENTITY, [])
    assert read_identity(run) == StoredIdentity(identity=IDENTITY)


def test_somebody_elses_is_named_by_what_it_holds(run: Bucket) -> None:
    run.put(CONFIG, b'{"model_type": "vit", "hidden_size": 768}')
    with pytest.raises(RunError, match=r"does not describe a run of crossdim.*holds hidden_size, model_type"):
        read_identity(run)


def test_if_no_checkpoint_is_whole_none_is_believed(run: Bucket) -> None:
    _save(run)
    run.put(CONFIG, b"")
    run.put("checkpoints/step-00000004/state.pt", b"")
    with pytest.raises(StorageError, match="whole; restore one"):
        read_identity(run)
