"""Checkpoints: there or not there, believed only with their hash, and never a silent start from zero."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir import checkpoint, checkpoint_listing, layout
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_listing import CheckpointListing, newest_step
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.resume import _choose
from tests.ranks import run_on_ranks

PATIENCE_S = 60.0


def _state(step: int) -> CheckpointState:
    weights = {"w": torch.full((3,), float(step))}
    return CheckpointState(
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


@pytest.mark.parametrize("made", ["folder", "pipe", "link to nothing", "link to itself"])
def test_a_pointer_that_is_no_file_ends_no_run(run: Bucket, made: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither when a checkpoint is loaded, which is found by listing, nor when one is saved, nor before the first."""
    pointer = Path(run.root) / "checkpoints/latest"

    def put_in_the_way() -> None:
        pointer.unlink(missing_ok=True)
        {
            "folder": pointer.mkdir,
            "pipe": lambda: os.mkfifo(pointer),
            "link to nothing": lambda: pointer.symlink_to("nothing"),
            "link to itself": lambda: pointer.symlink_to("latest"),
        }[made]()

    pointer.parent.mkdir(parents=True)
    put_in_the_way()
    assert checkpoint.load(run) is None
    checkpoint.save(run, _state(1), Saving(last=3))
    if made != "folder":
        put_in_the_way()
    found = checkpoint.load(run)
    assert found is not None
    assert found.step == 1
    assert ("goes on without it" in caplog.text) is (made == "folder")


def test_only_the_newest_are_kept(run: Bucket) -> None:
    for step in range(1, 6):
        checkpoint.save(run, _state(step), Saving(last=2))
    assert checkpoint_listing.complete_names(run) == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "no hashes", "half hashes", "gone"])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(run: Bucket, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each is a moment at which a save or a disk may have stopped; the one before must carry on."""
    checkpoint.save(run, _state(1), Saving(last=3))
    checkpoint.save(run, _state(2), Saving(last=3))
    folder = "checkpoints/step-00000002"
    data = run.read(f"{folder}/state.pt")
    if damage == "flipped":
        run.put(f"{folder}/state.pt", data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif damage == "cut":
        run.put(f"{folder}/state.pt", data[: len(data) // 2])
    elif damage == "no hashes":
        run.delete(f"{folder}/hashes.json")
    elif damage == "half hashes":
        run.put(f"{folder}/hashes.json", b'{"state.pt": "12')
    else:
        run.delete(f"{folder}/state.pt")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.load(run)
    assert found is not None
    assert found.step == 1
    assert damage == "no hashes" or "is passed over" in caplog.text


def test_a_run_never_starts_from_zero_by_itself(run: Bucket) -> None:
    checkpoint.save(run, _state(1), Saving(last=1))
    run.put("checkpoints/step-00000001/state.pt", b"")
    with pytest.raises(StorageError, match=r"none of .* is whole; restore one"):
        checkpoint.load(run)


def test_a_checkpoint_with_code_in_it_is_not_run(run: Bucket) -> None:
    """weights_only: a file that somebody else wrote is data and no program."""
    import hashlib
    import io

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


def test_the_newest_below_a_step_is_taken_when_parts_of_that_step_are_not_whole(run: Bucket) -> None:
    """And when none is left, the run does not start from zero."""
    for step in (1, 2, 3):
        checkpoint.save(run, _state(step), Saving(last=3))
    assert [getattr(checkpoint.load(run, below=below), "step", None) for below in (4, 3, 2)] == [3, 2, 1]
    with pytest.raises(StorageError, match="whole; restore one"):
        checkpoint.load(run, below=1)


def test_hashes_of_parts_stand_with_the_state_and_come_back(run: Bucket) -> None:
    """What is no part of them is no checkpoint."""
    parts = {"index.json": "12" * 32, "shard-00000-00000.bin": "ab" * 32}
    checkpoint.save(run, _state(2), Saving(last=3), parts)
    found = checkpoint.load(run)
    assert found is not None
    assert found.parts == parts
    stored = json.loads(run.read("checkpoints/step-00000002/hashes.json"))
    assert stored.keys() == {"state.pt", "parts/index.json", "parts/shard-00000-00000.bin"}
    assert b"shard" not in run.read("checkpoints/step-00000002/state.pt")


def test_what_is_half_written_goes_when_a_newer_one_is_whole(run: Bucket) -> None:
    """Not before, and nothing newer: another process may still be writing that."""
    for step in (1, 2, 4):
        run.put(f"{layout.parts_path(step)}/shard-00000-00000.bin", b"half")
    checkpoint.save(run, _state(3), Saving(last=3))
    folders = {stored.path.split("/")[1] for stored in run.list_objects("checkpoints")}
    assert folders == {"step-00000003", "step-00000004", "latest"}
    assert (checkpoint_listing.complete_names(run), newest_step(run)) == (["step-00000003"], 3)


@pytest.mark.parametrize(
    ("name", "objects", "reason"),
    [
        ("step-99999999", {"state.pt": b"x"}, "there is no hashes.json"),
        ("step-99999999", {"hashes.json": b"{}"}, "is no list of hashes"),
        ("step-99999999", {"hashes.json": b'{"state.pt": "00"}'}, "state.pt is not there"),
        ("step-99999999", {"hashes.json": b'{"state.pt": "00", "parts/a": "00"}', "state.pt": b"x"}, "parts/a is not there"),
        ("step-99999999", {"hashes.json": b"[" * 10**5}, "recursion"),
        ("step-999999999999", {"hashes.json": b'{"state.pt": "00"}', "state.pt": b"x"}, "no checkpoint is named so"),
        ("best", {"notes.txt": b"x"}, "no checkpoint is named so"),
    ],
)
def test_what_is_no_complete_checkpoint_is_not_counted_and_told(
    run: Bucket, name: str, objects: dict[str, bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its name promises; nor does it take the place of one that is to stay."""
    for path, data in objects.items():
        run.put(f"checkpoints/{name}/{path}", data)
    assert newest_step(run) == 0
    for step in (1, 2, 3):
        checkpoint.save(run, _state(step), Saving(last=2))
    assert newest_step(run) == 3
    assert [one for one in checkpoint_listing.complete_names(run) if one != name] == ["step-00000002", "step-00000003"]
    ((ignored, message),) = CheckpointListing(run).ignored().items()
    assert ignored == name
    assert reason in message
    assert CheckpointListing(run).ignored(10**8) == ({} if len(name) == 13 else {name: message})
    assert getattr(checkpoint.load(run), "step", None) == 3
    assert name in caplog.text


def test_a_list_of_hashes_that_is_too_long_is_not_read(run: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(run, _state(1), Saving())
    monkeypatch.setattr(checkpoint_listing, "LARGEST_LIST_BYTES", 10)
    assert "no list of hashes is so long" in CheckpointListing(run).ignored()["step-00000001"]


def test_of_those_for_good_none_is_counted_among_the_newest(run: Bucket) -> None:
    for step in range(1, 11):
        checkpoint.save(run, _state(step), Saving(last=2, for_good=4))
    assert checkpoint_listing.complete_names(run) == [f"step-{step:08d}" for step in (4, 8, 9, 10)]


class _Appearing(Bucket):
    """A lost worker's last checkpoint, that comes to be after rank 0 looked and before the others do."""

    def read(self, path: str) -> bytes:
        if dist.get_rank() == 0 and path.endswith("step-00000001/state.pt"):
            data = super().read(path)
            checkpoint.save(Bucket(self.url), _state(2), Saving(last=9))
            return data
        return super().read(path)

    def exists(self, path: str = "") -> bool:
        limit = time.monotonic() + PATIENCE_S
        while dist.get_rank() and not Bucket(self.url).exists("checkpoints/step-00000002/hashes.json"):
            assert time.monotonic() < limit
            time.sleep(0.01)
        return super().exists(path)


def _choosing(rank: int, world: int, folder: str) -> None:
    passed: list[str] = []
    cpu = torch.device("cpu")

    def choose(run: Bucket, below: int | None = None) -> CheckpointState | None:
        return _choose(run, cpu, rank, below, lambda name, reason: passed.append(name), lambda state: None)

    states = [choose(_Appearing(f"{folder}/run"))]
    dist.barrier()
    states += [choose(Bucket(f"{folder}/run"), below) for below in (None, 2)]
    states += [choose(Bucket(f"{folder}/none"))]
    found = [(state.step, state.model["w"]) if state else None for state in states]
    torch.save((found, passed), f"{folder}/{rank}.pt")


@pytest.mark.integration
def test_all_ranks_take_the_checkpoint_that_rank_0_found(tmp_path: Path) -> None:
    """Also when a newer one is there by the time that they look; and none where there is none."""
    checkpoint.save(Bucket(f"{tmp_path}/run"), _state(1), Saving(last=9))
    run_on_ranks(2, _choosing, str(tmp_path))
    for rank in range(2):
        found, passed = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert [state and (state[0], state[1].tolist()) for state in found] == [(n, [float(n)] * 3) for n in (1, 2, 1)] + [None]
        assert passed == []


def test_a_checkpoint_that_only_rank_0_can_read_is_one_sentence(run: Bucket) -> None:
    """A folder that is not shared, or bytes that changed between two looks."""
    checkpoint.save(run, _state(1), Saving(last=3))
    run.put("checkpoints/step-00000001/state.pt", b"other")
    with pytest.raises(StorageError, match=r"step-00000001 was whole for rank 0 and is not here: .*sha256; start again"):
        checkpoint.load_step(run, 1)
    with pytest.raises(StorageError, match=r"step-00000007 was whole for rank 0 and is not here: .*does not exist"):
        checkpoint.load_step(run, 7)
