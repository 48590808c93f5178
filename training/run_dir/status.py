"""Reads how a run is doing from its folder alone, from any machine, while it is written or long after. Needs no torch.

Durations between two things that rank 0 wrote, such as the age of a checkpoint, are of one clock. Only the silence compares
rank 0's clock with the reader's; where the two differ by minutes, it is wrong by as much. After a move of rank 0 to another
machine, ages across that move have the difference of the two clocks in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import format_location, hide_secrets
from crossdim.storage_schema.errors import DocumentError, RunError
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.attempts import describe_attempt, read_attempts
from crossdim.training.run_dir.checkpoint_listing import CheckpointListing
from crossdim.training.run_dir.events import Event, list_events, read_event
from crossdim.training.run_dir.layout import CONFIG, checkpoint_name
from crossdim.training.run_dir.metrics import read_progress, read_recent
from crossdim.training.run_dir.records import Record, is_count
from crossdim.training.run_dir.run_config import read_run_config

#: Steps that rates are means of.
WINDOW = 100
#: A run is silent after this long without a word, or after as many steps' time as ``SILENT_AFTER_STEPS`` if that is longer.
SILENT_AFTER_S = 120.0
SILENT_AFTER_STEPS = 10
#: Number of newest unusual events that are shown in full.
MAX_NOTABLE = 3
EXTRAORDINARY = ("failed", "passed-over", "damaged", "reread", "collapse", "lost", "resize", "preempted", "stopped")

State = Literal["waiting", "running", "restarting", "silent", "killed", "stopped", "failed", "done"]
#: What the newest event of a start says of the run.
STATES: dict[str, State] = {"lost": "restarting", "stopped": "stopped", "failed": "failed", "end": "done"}
AT_WORK = ("running", "restarting")
#: A run in one of these states changes no more until it is started again.
ENDED = ("killed", "stopped", "failed", "done")
#: States for which ``crossdim status`` has exit code 0.
GOOD = (*AT_WORK, "done")
RESUMES, STARTS_AGAIN = "it resumes from the last checkpoint", "it starts again: there is no checkpoint yet"
#: What to do about a run that does not get on by itself.
REMEDIES: dict[State, str] = {
    "silent": f"if no process trains it any more, run the same pretrain command again; {RESUMES}",
    "killed": f"run the same pretrain command again; {RESUMES}",
    "stopped": "to resume, run the same pretrain command again",
    "failed": f"once the cause is fixed, run the same pretrain command again; {RESUMES} (other settings need another --out)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A run at a glance; None where nothing is known yet.

    Attributes:
        state: ``waiting`` if no worker has written yet, ``restarting`` after a worker was lost, ``killed`` if the process of its
            command ran on this machine and is gone without a word.
        step: steps done, of ``steps``.
        workers: of the newest start.
        wait_share: of rank 0's time, the part in which it waited for data.
        in_vain: steps that were done again after losses, at least: the last two seconds before a loss may not be known.
        skew_share: of the time, the part in which the first worker of a step waited for the last.
        checkpoint_age_s: from the newest checkpoint that holds to the last word; what was done since is done again after a loss.
        last_word_s: when rank 0 last wrote, by its own clock, in seconds since 1970.
        silence_s: from then until now, by the reader's clock.
        eta_s: from the last word to the last step; None unless the run is running.
        events: how many of each kind.
        notable_events: the newest failures and passed-over checkpoints, oldest first.
        ignored: what lies among the checkpoints and is no complete one, with the reason.
        attempts: how many commands worked on the run.
        last_attempt: the newest of them, see :mod:`.attempts`; None in runs of older versions.
    """

    run: str
    state: State
    step: int
    steps: int
    loss: float | None = None
    steps_per_s: float | None = None
    samples_per_s: float | None = None
    wait_share: float | None = None
    skew_share: float | None = None
    workers: int | None = None
    in_vain: int = 0
    checkpoint_step: int | None = None
    checkpoint_age_s: float | None = None
    last_word_s: float | None = None
    silence_s: float | None = None
    eta_s: float | None = None
    events: dict[str, int]
    notable_events: list[Record]
    ignored: list[str] = field(default_factory=list)
    attempts: int = 0
    last_attempt: Record | None = None

    def __str__(self) -> str:
        if self.last_word_s is None:
            waiting = f"{format_location(self.run)}: {self.state}; no worker has started yet, {self.steps} steps in total"
            advice = [f"  {REMEDIES['killed'].replace(RESUMES, STARTS_AGAIN)}"] * (self.state == "killed")
            return "\n".join([waiting, *self._list_attempts(), *advice])
        state: str = self.state
        if state == "silent":
            since = f"{datetime.fromtimestamp(self.last_word_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
            state = f"silent since {since} ({_duration(self.silence_s or 0.0)} by this machine's clock)"
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        workers = "unknown" if self.workers is None else self.workers
        lines = [f"{format_location(self.run)}: {state}, step {self.step} of {self.steps}{loss}, workers {workers}"]
        if self.steps_per_s is not None:
            left = "" if self.eta_s is None else f"; {_duration(self.eta_s)} left"
            rate = f"{self.steps_per_s:.3g} steps/s, {self.samples_per_s:.3g} samples/s"
            waits = f"{self.wait_share:.0%} of the time waiting for data, {self.skew_share:.0%} for the slowest worker"
            lines.append(f"  {rate}, {waits}{left}")
        lines.append(f"  last progress {_duration(self.silence_s or 0.0)} ago")
        if self.checkpoint_step is not None:
            age = f", {_duration(self.checkpoint_age_s)} before the last progress" if self.checkpoint_age_s else ""
            lines.append(f"  last checkpoint: step {self.checkpoint_step}{age}")
        lines += [f"  ignored among the checkpoints: {printable(one)}" for one in self.ignored]
        if self.in_vain:
            useful = self.step / (self.step + self.in_vain)
            lines.append(f"  goodput: {useful:.1%} of the computed steps were kept, {self.in_vain} were repeated")
        lines.append("  events: " + ", ".join(f"{kind} {number}" for kind, number in self.events.items()))
        lines += [
            f"  {event['kind']} at step {event['step']}{_describe_time(event)}"
            + (f": {printable(' '.join(event['text'].split()))}" if event.get("text") else "")
            for event in self.notable_events
        ]
        lines += self._list_attempts()
        if (remedy := REMEDIES.get(self.state)) is not None:
            lines.append(f"  {remedy if self.checkpoint_step is not None else remedy.replace(RESUMES, STARTS_AGAIN)}")
        return "\n".join(lines)

    def _list_attempts(self) -> list[str]:
        if self.last_attempt is None:
            return []
        return [f"  attempts: {self.attempts}, the last {describe_attempt(self.last_attempt)}"]


def read_status(run: Bucket, now: float, steps: int | None = None) -> Status:
    """Read how a run is doing.

    Args:
        run: its folder.
        now: the reader's clock, in seconds since 1970.
        steps: of the whole run, if that is known otherwise; its configuration is not read then.

    Returns:
        State, step, rate, time left, newest checkpoint and events.

    Raises:
        RunError: if there is no run.
        StorageError: if the store does not answer. What is half-written or just being replaced is left out instead.
    """
    total = _steps(run) if steps is None else steps
    happened = list_events(run)
    counts, begun = dict(Counter(event.kind for event in happened)), _last(happened, "start", "resume")
    notable = [read_event(run, event) for event in [e for e in happened if e.kind in EXTRAORDINARY][-MAX_NOTABLE:]]
    start, newest = (read_event(run, event) if event else {} for event in (begun, happened[-1] if happened else None))
    attempts = read_attempts(run)
    waiting = Status(
        run=hide_secrets(run.url),
        state="waiting",
        step=0,
        steps=total,
        events=counts,
        notable_events=notable,
        attempts=attempts.number,
        last_attempt=attempts.last,
    )
    if begun is None:
        return replace(waiting, state="killed") if attempts.is_killed() else waiting
    lines = [line for line in read_recent(run, WINDOW) if line["step"] >= begun.step]
    spoken, step, loss = _find_last_word(lines, read_progress(run), start, begun.step)
    last_word = max(spoken, newest.get("time_s", 0.0), start.get("time_s", 0.0))
    if not last_word:  # a first note that cannot be read yet
        return waiting
    rates = _rates(lines)
    state = _state(happened, now - last_word, rates)
    if state not in ENDED and attempts.is_killed():
        state = "killed"
    ignored = CheckpointListing(run).ignored(total if state in AT_WORK else 0)
    kept = _newest_checkpoint([event for event in happened if checkpoint_name(event.step) not in ignored], begun)
    written = read_event(run, kept).get("time_s") if kept else None
    return replace(
        waiting,
        state=state,
        step=max(step, happened[-1].step),  # a failure knows it to the step, the numbers of the last two seconds may be lost
        loss=loss,
        workers=start.get("workers"),
        checkpoint_step=kept.step if kept else None,
        checkpoint_age_s=None if written is None else max(0.0, last_word - written),
        last_word_s=last_word,
        silence_s=max(0.0, now - last_word),
        eta_s=(total - step) / rates["steps_per_s"] if rates and state == "running" else None,
        in_vain=start.get("in_vain", 0),
        ignored=[f"{name}: {fault}" for name, fault in ignored.items()],
        steps_per_s=rates.get("steps_per_s"),
        samples_per_s=rates.get("samples_per_s"),
        wait_share=rates.get("wait_share"),
        skew_share=rates.get("skew_share"),
    )


def _find_last_word(
    lines: Sequence[Record], note: Record | None, start: Record, first_step: int
) -> tuple[float, int, float | None]:
    """When rank 0 last wrote a step, how many steps were done then, and the loss; of the start itself if it has written none."""
    words = [(line["time_s"], line["step"] + 1, line["loss"]) for line in lines]
    # A progress note from before this start is of steps that are done again.
    if note and note["time_s"] >= start.get("time_s", 0.0):
        words.append((note["time_s"], note["step"], note["loss"]))
    return max(words, default=(0.0, first_step, None))


def _steps(run: Bucket) -> int:
    """Steps of the whole run."""
    if not run.exists(CONFIG):
        raise RunError(
            f"{run.where('')} holds no run: there is no {CONFIG} that can be read; check the --out of its command, "
            "prepare or pretrain"
        )
    try:
        steps = read_run_config(run).identity["config"].get("steps")
    except DocumentError as error:
        message = " ".join(str(error).split())
        remedy = "if it is a run, its pretrain command rebuilds it from a checkpoint"
        raise RunError(f"{run.where('')} holds no run whose {CONFIG} can be read: {message}; {remedy}") from error
    if not is_count(steps) or not steps:
        raise RunError(f"{run.where(CONFIG)} gives {steps!r} steps; no configuration that can be read does")
    return int(steps)


def _last(happened: Sequence[Event], *kinds: str) -> Event | None:
    return next((event for event in reversed(happened) if event.kind in kinds), None)


def _newest_checkpoint(happened: Sequence[Event], begun: Event) -> Event | None:
    """The newest checkpoint that holds: one since the newest start, or the one that was resumed from."""
    return _last([e for e in happened if e.place > begun.place or e.step == begun.step], "checkpoint")


def _rates(lines: Sequence[Record]) -> dict[str, float]:
    """Means over steps in a row, with what lies between them, such as checkpoints; nothing without a step."""
    if not lines:
        return {}
    spent = max(sum(line["step_s"] for line in lines), lines[-1]["time_s"] - lines[0]["time_s"] + lines[0]["step_s"])
    samples = sum(sum(line["counts"].values()) for line in lines)
    waited = sum(line["wait_s"] for line in lines) / spent
    skewed = sum(line["skew_s"] for line in lines) / spent
    return {"steps_per_s": len(lines) / spent, "samples_per_s": samples / spent, "wait_share": waited, "skew_share": skewed}


def _state(happened: Sequence[Event], silence_s: float, rates: dict[str, float]) -> State:
    last = _last(happened, "start", "resume", *STATES)
    if last and last.kind in STATES:
        return STATES[last.kind]
    limit_s = max(SILENT_AFTER_S, SILENT_AFTER_STEPS / rates["steps_per_s"]) if rates else SILENT_AFTER_S
    return "silent" if silence_s > limit_s else "running"


def _describe_time(event: Record) -> str:
    return f", {datetime.fromtimestamp(event['time_s'], UTC):%Y-%m-%d %H:%M:%S} UTC" if event.get("time_s") else ""


def _duration(seconds: float) -> str:
    """A time span for people, to two digits or so."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
