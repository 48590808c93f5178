"""A run in whose files bits are flipped, as resume, status, evaluate and load_encoder read them.

Each look says what came of a flip; a value that differs from what was written without a word ends the measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.flip_outcome import Outcome, Target, UnseenError, expect
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError, RunError, StorageError
from crossdim.training.backbones import load_encoder
from crossdim.training.config.pretraining import apply_overrides
from crossdim.training.launch.driver import pretrain, read_saved_config
from crossdim.training.launch.worker import Source
from crossdim.training.launch.workers import Workers
from crossdim.training.recipes import recipe
from crossdim.training.run_dir import checkpoint, layout, sharded
from crossdim.training.run_dir.attempts import list_attempts, read_attempt
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.events import list_events, read_event
from crossdim.training.run_dir.layout import CONFIG, ENCODER
from crossdim.training.run_dir.metrics import read_log, read_progress
from crossdim.training.run_dir.status import Status, read_status
from tests.training import boards

ALONE = Workers(least=0, most=0, use_gpu=False, address=None, quiet=True)


class Run:
    """A finished run of six steps with a checkpoint every second one, and what was written in it."""

    def __init__(self, folder: Path) -> None:
        self.bucket, data = Bucket(str(folder / "run")), Bucket(str(folder / "superpatch"))
        small = ["steps=6", "global_batch=2", "method.backbone.widths=[2,2,4]", "method.crops.solid_side=16"]
        small += ["compute.precision=fp32", "compute.compiled=false"]  # as a run records them: it chooses for its devices
        self.config = apply_overrides(recipe("ae:tiny"), small)
        self.sources = [Source(bucket=data, weight=1.0)]
        self.go_on()
        self.files = {stored.path: self.bucket.read(stored.path) for stored in self.bucket.list_objects()}
        self.states = {step: checkpoint.load_step(self.bucket, step) for step in (2, 4, 6)}
        self.records = {record["step"]: record for record in read_log(self.bucket)[0]}
        self.notes = {event.path: read_event(self.bucket, event) for event in list_events(self.bucket)}
        self.attempts = {path: read_attempt(self.bucket, path) for path in list_attempts(self.bucket)}
        self.progress = read_progress(self.bucket)
        self.encoder = load_encoder(self.bucket.full(ENCODER))
        self.status = self.read_status()

    def go_on(self) -> int:
        """What ``pretrain`` does."""
        return pretrain(self.config, self.sources, self.bucket, ALONE, Saving(every=2), 1)

    def read_status(self) -> Status:
        """What ``status`` says."""
        return read_status(self.bucket, 2e9)

    def restore(self) -> None:
        """Put the folder back as it was."""
        for stored in self.bucket.list_objects():
            if stored.path not in self.files:
                self.bucket.delete(stored.path)
        for path, data in self.files.items():
            if self.bucket.read(path) != data:
                self.bucket.put(path, data)

    def targets(self) -> list[Target]:
        """The kinds of file in its folder."""
        newest = f"{layout.CHECKPOINTS}/{layout.checkpoint_name(6)}"
        looks: dict[str, tuple[str, Callable[[str], Outcome]]] = {
            "run: config.json": (CONFIG, self.look_at_config),
            "run: latest": (layout.LATEST, self.look_at_checkpoint),
            "run: state.pt": (f"{newest}/{layout.STATE}", self.look_at_checkpoint),
            "run: hashes.json": (f"{newest}/{layout.HASHES}", self.look_at_checkpoint),
            "run: metrics": ("metrics/", self.look_at_metrics),
            "run: progress.json": (layout.PROGRESS, self.look_at_progress),
            "run: events": ("events/", self.look_at_event),
            "run: attempts": (f"{layout.ATTEMPTS}/", self.look_at_attempt),
            "run: encoder.pt": (ENCODER, self.look_at_encoder),
            "run: tensorboard": ("tensorboard/", self.look_at_board),
        }
        return [
            Target(kind=kind, bucket=self.bucket, paths=tuple(p for p in self.files if p.startswith(prefix)), look=look)
            for kind, (prefix, look) in looks.items()
        ]

    def look_at_config(self, path: str) -> Outcome:
        """Asked by status, resumed by pretrain with and without a recipe."""
        damaged = self.bucket.read(path)
        try:
            expect(self.read_status() == self.status, "status")
            reported = False
        except RunError:
            reported = True
        expect(read_saved_config(self.bucket) == self.config, "the configuration that is resumed")
        expect(self.go_on() == 6, "the step that is resumed at")
        now = self.bucket.read(path)
        self.restore()
        if now == self.files[path]:
            expect(reported, "what status says of a configuration that was rebuilt")
            return Outcome(kind="repaired", how="rebuilt from the newest checkpoint, with an event")
        expect(now == damaged and not reported, "a configuration that is neither kept nor rebuilt")
        return Outcome(kind="harmless", how="the word digest or white space: the identity is that of the checkpoint")

    def look_at_checkpoint(self, path: str) -> Outcome:
        """Loaded as a resume does."""
        passed: list[str] = []
        state = checkpoint.load(self.bucket, lambda name, reason: passed.append(reason))
        if state is None:
            raise UnseenError("a run that starts from zero")
        expect(_equal(state, self.states[state.step]), f"the state of step {state.step}")
        shown = self.read_status()
        if shown.ignored:  # a list of hashes that is none; whether hashes are right is not looked at
            expect(shown.ignored == [f"{layout.checkpoint_name(6)}: {passed[0]}"], "what status ignores")
            expect(shown.checkpoint_step == state.step, "the checkpoint that status counts on")
            known = self.status.checkpoint_step, self.status.checkpoint_age_s
            shown = replace(shown, ignored=[], checkpoint_step=known[0], checkpoint_age_s=known[1])
        expect(shown == self.status, "status")
        if state.step == 6:
            return Outcome(kind="harmless", how="nothing is read from it but by people" if not passed else "?")
        expect(state.step == 4 and len(passed) == 1, "the checkpoint that is taken instead")
        return Outcome(kind="repaired", how="the checkpoint before it is taken, with an event")

    def look_at_metrics(self, path: str) -> Outcome:
        """Read as evaluate, study and status do."""
        records, damaged = read_log(self.bucket)
        for record in records:
            written = self.records[record["step"]]
            expect({name: record[name] for name in written} == written, f"the record of step {record['step']}")
        expect(bool(damaged) == (len(records) < len(self.records)), "a step that is gone without a word")
        expect(self.read_status().step == 6, "how far the run is")
        if damaged:
            return Outcome(kind="repaired", how="the line is left out and counted")
        return Outcome(kind="harmless", how="the name of a checksum: all records are equal")

    def look_at_progress(self, path: str) -> Outcome:
        """Read as status and the bar do."""
        note, shown = read_progress(self.bucket), self.read_status()
        expect(note in (None, self.progress), "the progress note")
        expect((shown.step, shown.loss) == (self.status.step, self.status.loss), "how far the run is")
        if note is None:
            return Outcome(kind="repaired", how="the metrics tell how far the run is")
        return Outcome(kind="harmless", how="the name of a checksum: all values are equal")

    def look_at_event(self, path: str) -> Outcome:
        """Read as status does."""
        found = {event.path: read_event(self.bucket, event) for event in list_events(self.bucket)}
        expect(list(found) == list(self.notes), "the order of events")
        expect(self.read_status().events == self.status.events, "how many events there were")
        for name, note in found.items():
            bare = {key: self.notes[name][key] for key in ("kind", "step")}
            expect(note == self.notes[name] or (name == path and note == bare), f"event {name}")
        if found[path] != self.notes[path]:
            return Outcome(kind="repaired", how="its name tells number, writer, kind and step; its text is left out")
        return Outcome(kind="harmless", how="the name of a checksum: all values are equal")

    def look_at_attempt(self, path: str) -> Outcome:
        """Read as status does."""
        found = {one: read_attempt(self.bucket, one) for one in list_attempts(self.bucket)}
        expect(list(found) == list(self.attempts), "how many attempts there were")
        expect(found[path] in (self.attempts[path], {}), f"attempt {path}")
        expect(self.read_status().state == self.status.state, "the state of the run")
        if not found[path]:
            return Outcome(kind="repaired", how="it is counted; what it says is left out")
        return Outcome(kind="harmless", how="the name of a checksum: all values are equal")

    def look_at_encoder(self, path: str) -> Outcome:
        """Loaded as people do."""
        try:
            encoder, spec = load_encoder(self.bucket.full(path))
        except CrossdimError:
            return Outcome(kind="refused", how="load_encoder")
        expect(spec == self.encoder[1], "the encoder's spec")
        expect(_same(encoder.state_dict(), self.encoder[0].state_dict()), "the encoder's weights")
        return Outcome(kind="harmless", how="the archive's padding, times and flags: all tensors and the spec are equal")

    def look_at_board(self, path: str) -> Outcome:
        """Read by the rule of TensorBoard's files; nothing of ours reads them."""
        expect(self.read_status() == self.status, "status")
        try:
            boards.read(self.bucket.read(path))
        except Exception:  # of a reader that is not ours; that it refuses is all that is asked
            return Outcome(kind="refused", how="the checksum that each record has, in TensorBoard")
        raise UnseenError("a curve")


def parts_target(folder: Path) -> Target:
    """The parts of a sharded checkpoint."""
    bucket, written = Bucket(str(folder / "sharded")), {f"w{n}": torch.randn(n, 5) for n in range(1, 5)}
    hashes = sharded.write(bucket, "parts", dict(written), None)

    def look(_: str) -> Outcome:
        found = {name: torch.zeros_like(tensor) for name, tensor in written.items()}
        try:
            sharded.read(bucket, "parts", hashes, found, None)
        except StorageError:
            return Outcome(kind="refused", how="its hash; a resume takes the checkpoint before it")
        raise UnseenError("a part that is not what was written")

    paths = tuple(stored.path for stored in bucket.list_objects())
    return Target(kind="run: parts of a sharded checkpoint", bucket=bucket, paths=paths, look=look)


def _same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors and plain values are equal, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _equal(one: CheckpointState, other: CheckpointState) -> bool:
    return all(_same(getattr(one, name), getattr(other, name)) for name in CheckpointState.__dataclass_fields__)
