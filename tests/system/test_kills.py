"""A run without Ray, killed again and again while it saves: what is left is always enough, and the experiment stays the same.

The many by hand, with where each kill hit on the screen: ``pytest -m slow --log-cli-level=INFO tests/system/test_kills.py``.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossdim.foundation.bucket import TEMPORARY_PREFIX, Bucket
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.checkpoint_listing import complete_names, newest_step
from crossdim.training.run_dir.events import Event, list_events
from crossdim.training.run_dir.layout import CHECKPOINTS, HASHES, LATEST, STATE, checkpoint_name
from crossdim.training.run_dir.metrics import read_metrics
from tests.system.conftest import crossdim, ended, start
from tests.training.published import publish, superpatches

pytestmark = pytest.mark.system
_LOG = logging.getLogger(__name__)

PATIENCE_S = 120
#: A life is killed in one of its first checkpoints, at most so long after that is begun.
MOST_CHECKPOINTS, MOST_DELAY_S = 4, 0.05
#: Lives for each kill that is to hit a save, and steps of a life: some kills come late, and hit what follows a save.
MOST_LIVES, MOST_STEPS = 8, 7
SEED = 20


@dataclass(frozen=True, kw_only=True)
class Wreck:
    """What a kill left behind.

    Attributes:
        whole: steps in the newest checkpoint whose bytes are what was written.
        events: notes there were.
        phase: how far the newest checkpoint was, in words.
    """

    whole: int
    events: int
    phase: str

    @property
    def in_a_save(self) -> bool:
        """Whether that checkpoint was being written still: the event is the last of it."""
        return not self.phase.startswith(("event", "nothing yet"))


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_run_that_is_killed_while_it_saves_goes_on_and_ends_as_if_nothing_had_been(kills: int, tmp_path: Path) -> None:
    publish(Bucket(str(tmp_path / "data")), superpatches(20), "solid")
    steps, chance = kills * MOST_LIVES * MOST_STEPS, random.Random(SEED)
    wrecks: list[Wreck] = []
    while sum(wreck.in_a_save for wreck in wrecks) < kills:
        assert len(wrecks) < kills * MOST_LIVES, "kills hardly ever hit a save"
        wrecks.append(_killed(tmp_path, steps, chance))
        _LOG.info("kill %d with step %d saved: %s", len(wrecks), wrecks[-1].whole, wrecks[-1].phase)
    assert "was already done" not in crossdim(*_line(tmp_path, "killed", steps))
    phases = Counter(wreck.phase for wreck in wrecks).most_common()
    _LOG.info("%d kills hit: %s", len(wrecks), "; ".join(f"{count} x {phase}" for phase, count in phases))
    crossdim(*_line(tmp_path, "whole", steps))

    killed, whole = Bucket(str(tmp_path / "killed")), Bucket(str(tmp_path / "whole"))
    _each_start_goes_on_from_the_newest(list_events(killed), wrecks)
    one, two = read_metrics(killed), read_metrics(whole)
    for column in ("step", "samples", "counts", "loss", "grad_norm"):
        assert [record[column] for record in one] == [record[column] for record in two], column
    assert killed.read("encoder.pt") == whole.read("encoder.pt")
    assert [stored.path for stored in killed.list_objects(CHECKPOINTS)] == [
        stored.path for stored in whole.list_objects(CHECKPOINTS)
    ]
    assert not list((tmp_path / "killed").rglob(f"{TEMPORARY_PREFIX}*"))


def _line(folder: Path, run: str, steps: int) -> tuple[str, ...]:
    what = ("--recipe", "maesil:tiny", "--set", "global_batch=8", "--steps", str(steps), "--threads", "1", "--workers", "0")
    return ("pretrain", *what, "--data", str(folder / "data"), "--out", str(folder / run), "--checkpoint-every", "1")


def _killed(folder: Path, steps: int, chance: random.Random) -> Wreck:
    """Start the run, or go on with it, and kill it while it writes a later checkpoint."""
    run = Bucket(str(folder / "killed"))
    more = chance.randint(1, MOST_CHECKPOINTS)
    last, at = Path(run.root) / CHECKPOINTS / checkpoint_name(newest_step(run) + more), time.time()
    process = start(*_line(folder, "killed", steps))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not last.exists() or last.stat().st_mtime < at:  # a life before may have begun it
            assert process.poll() is None, f"the run ended: {process.communicate()}"
            assert time.monotonic() < deadline, f"{more} checkpoints were not begun in {PATIENCE_S} s"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, MOST_DELAY_S))  # a moment as good as any other
        os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
    finally:
        ended(process)
    assert process.returncode == -signal.SIGKILL, err[-3000:]
    assert "Traceback" not in err
    state = checkpoint.load(run)
    return Wreck(whole=state.step if state else 0, events=len(list_events(run)), phase=_phase(Path(run.root)))


def _phase(run: Path) -> str:
    """How far the newest checkpoint is, by the objects that exist."""
    open_files = {str(path.parent.relative_to(run)) for path in run.rglob(f"{TEMPORARY_PREFIX}*")}
    where = f", in the middle of an object in {' and '.join(sorted(map(_kind, open_files)))}" if open_files else ""
    folders = sorted((run / CHECKPOINTS).glob("step-*"))
    if not folders:
        return f"nothing yet{where}"
    newest = folders[-1]
    if not (newest / STATE).exists():
        return f"folder without state{where}"
    if not (newest / HASHES).exists():
        return f"state without hashes{where}"
    pointer = run / LATEST
    if not pointer.exists() or pointer.read_text() != newest.name:
        return f"hashes, and the pointer is older{where}"
    if len(complete_names(Bucket(str(run)))) > 3 or any(not (folder / STATE).exists() for folder in folders):
        return f"pointer, and an old one is not gone yet{where}"
    found = any(
        event.kind == "checkpoint" and checkpoint_name(event.step) == newest.name for event in list_events(Bucket(str(run)))
    )
    return f"{'event' if found else 'pointer'}{where}"


def _kind(folder: str) -> str:
    return "a step's folder" if "step-" in folder else folder.replace(".", "the run's folder")


def _each_start_goes_on_from_the_newest(happened: list[Event], wrecks: list[Wreck]) -> None:
    """After each kill the next note is a start from the newest checkpoint that was whole then."""
    for wreck in wrecks:
        first = happened[wreck.events]
        assert (first.kind, first.step) == ("resume" if wreck.whole else "start", wreck.whole), f"after {wreck}"
