"""The names of everything that a run's folder holds. Other modules take names from here and make none themselves.

Paths are relative to the folder of the run. ``<step>`` counts steps done, with eight digits.

=============================================================  ============================================================
``config.json``                                                identity and sources of the run
``checkpoints/latest``                                         name of the newest checkpoint, for people
``checkpoints/step-<step>/state.pt``                           step, position, identity, model, optimizer, moving average
``checkpoints/step-<step>/hashes.json``                        sha256 of the checkpoint's objects, written last
``checkpoints/step-<step>/parts/index.json``                   of a sharded run: where each tensor lies
``checkpoints/step-<step>/parts/<kind>-<rank>-<number>.bin``   of a sharded run: tensors
``encoder.pt``                                                 spec and weights of the encoder
``metrics/<step>.jsonl``                                       a line for each step from that step on
``tensorboard/events.out.tfevents.<step>``                     the same numbers for TensorBoard
``tensorboard/pictures/events.out.tfevents.<step>``            ``pictures/<step>.json`` for TensorBoard
``tensorboard/evaluation/events.out.tfevents.<step>``          of ``crossdim evaluate``: figures, verdict, pictures
``trackers/<name>.json``                                       which run of W&B or MLflow this is, and what it has
``progress.json``                                              how far the run is
``events/<number>-<writer>-<kind>-<step>.json``                what happened to the run
``attempts/<time>-<writer>.json``                              a command that worked on the run, and how it ended
``ray/...``                                                    Ray's marker and snapshot, and ``ray/requester``
``report.html``, ``evaluation.json``, ``pictures.json``        of ``crossdim evaluate``
``card.md``                                                    of ``crossdim evaluate``, the model card
``checkpoint_probes.json``                                     of ``crossdim evaluate --checkpoints``
``pictures/<step>.json``                                       pictures of a few samples, drawn while the run goes on
=============================================================  ============================================================
"""

from __future__ import annotations

import re
from typing import NamedTuple

from crossdim.training.tracker_names import TRACKER_NAMES

CONFIG = "config.json"
ENCODER = "encoder.pt"
PROGRESS = "progress.json"
REPORT, EVALUATION, PICTURES, CARD = "report.html", "evaluation.json", "pictures.json", "card.md"
CHECKPOINT_PROBES = "checkpoint_probes.json"
CHECKPOINTS = "checkpoints"
LATEST = f"{CHECKPOINTS}/latest"
#: In the folder of a checkpoint.
STATE, HASHES, PARTS = "state.pt", "hashes.json", "parts"
#: In the folder of the parts of a sharded checkpoint.
SHARD_INDEX = "index.json"
METRICS, TENSORBOARD, EVENTS, ATTEMPTS = "metrics", "tensorboard", "events", "attempts"
#: The folder of the pictures that a run draws while it goes on.
STEP_PICTURES = "pictures"
#: Below that of TensorBoard.
PICTURE_BOARDS, EVALUATION_BOARDS = f"{TENSORBOARD}/pictures", f"{TENSORBOARD}/evaluation"
TRACKERS = "trackers"
#: Where Ray Train keeps its notes, and the name under which the newest driver of the run has reserved machines.
RAY = "ray"
RAY_REQUESTER = f"{RAY}/requester"
#: What Ray Train 2.60 writes there: a file by which it tests the store, and a list of checkpoints, of which ours are none.
RAY_MARKER, RAY_SNAPSHOT = f"{RAY}/.validate_storage_marker", f"{RAY}/checkpoint_manager_snapshot.json"

_CHECKPOINT = re.compile(r"step-\d{8}")
_CHECKPOINT_PATH = re.compile(rf"{CHECKPOINTS}/({_CHECKPOINT.pattern})/")
_SEGMENT = re.compile(rf"(?:{METRICS}/(\d{{1,15}})\.jsonl|{TENSORBOARD}/events\.out\.tfevents\.(\d{{1,15}}))\Z")
_BOARD = re.compile(rf"(?:{PICTURE_BOARDS}|{EVALUATION_BOARDS})/events\.out\.tfevents\.(\d{{8}})\Z")
_TRACKER = re.compile(rf"{TRACKERS}/({'|'.join(TRACKER_NAMES)})\.json\Z")
_STEP_PICTURES = re.compile(rf"{STEP_PICTURES}/(\d{{8}})\.json\Z")
_EVENT = re.compile(rf"{EVENTS}/(\d{{1,15}})-(?:([a-z0-9]+\.[0-9a-f]{{8}})-)?([a-z-]+)-(\d{{1,15}})\.json\Z")
_ATTEMPT = re.compile(rf"{ATTEMPTS}/\d{{8}}T\d{{6}}-[0-9a-f]{{8}}\.json\Z")
_SHARD = rf"{re.escape(SHARD_INDEX)}|(?:shard|whole)-\d{{5}}-\d{{5}}\.bin"
_IN_CHECKPOINT = re.compile(rf"{re.escape(STATE)}\Z|{re.escape(HASHES)}\Z|{PARTS}/(?:{_SHARD})\Z")
_SINGLE = frozenset(
    (
        *(CONFIG, ENCODER, PROGRESS, LATEST, RAY_REQUESTER, RAY_MARKER, RAY_SNAPSHOT),
        *(REPORT, EVALUATION, PICTURES, CHECKPOINT_PROBES, CARD),
    )
)


def checkpoint_name(step: int) -> str:
    """The name of a checkpoint's folder."""
    return f"step-{step:08d}"


def is_checkpoint_name(name: str) -> bool:
    """Whether a name is that of a checkpoint's folder."""
    return _CHECKPOINT.fullmatch(name) is not None


def checkpoint_step(name: str) -> int:
    """The number of steps done in a checkpoint, from the name of its folder."""
    return int(name.removeprefix("step-"))


def checkpoint_of(path: str) -> str | None:
    """The name of the checkpoint that an object belongs to; None if it belongs to none."""
    match = _CHECKPOINT_PATH.match(path)
    return match[1] if match else None


def parts_path(step: int) -> str:
    """The folder of the parts of a sharded checkpoint."""
    return f"{CHECKPOINTS}/{checkpoint_name(step)}/{PARTS}"


def shard_name(rank: int, number: int, *, whole: bool) -> str:
    """The name of an object in the folder of parts.

    Args:
        rank: who writes it.
        number: which of the rank's objects of this kind.
        whole: whether it holds whole tensors, or shards of tensors.

    Returns:
        Such as ``shard-00000-00003.bin``.
    """
    return f"{'whole' if whole else 'shard'}-{rank:05d}-{number:05d}.bin"


def metrics_path(first_step: int) -> str:
    """The object that holds a line for each step from ``first_step`` on."""
    return f"{METRICS}/{first_step:08d}.jsonl"


def tensorboard_path(first_step: int) -> str:
    """The event file of TensorBoard that begins with ``first_step``."""
    return f"{TENSORBOARD}/events.out.tfevents.{first_step:08d}"


def picture_board_path(step: int) -> str:
    """The event file of TensorBoard with the pictures that were drawn after ``step`` steps."""
    return f"{PICTURE_BOARDS}/events.out.tfevents.{step:08d}"


def evaluation_board_path(step: int) -> str:
    """The event file of TensorBoard with the evaluation after ``step`` steps."""
    return f"{EVALUATION_BOARDS}/events.out.tfevents.{step:08d}"


def tracker_path(name: str) -> str:
    """The note on the run of a tracker."""
    return f"{TRACKERS}/{name}.json"


def tracker_of(path: str) -> str | None:
    """The tracker whose note an object is; None for other paths."""
    match = _TRACKER.match(path)
    return match[1] if match else None


def first_step_of(path: str) -> int | None:
    """The step that an object of :func:`metrics_path` or :func:`tensorboard_path` begins with; None for other paths."""
    match = _SEGMENT.match(path)
    return int(match[1] or match[2]) if match else None


def step_pictures_path(step: int) -> str:
    """The object that holds the pictures drawn after ``step`` steps."""
    return f"{STEP_PICTURES}/{step:08d}.json"


def pictures_step_of(path: str) -> int | None:
    """The number of steps done when an object of :func:`step_pictures_path` was drawn; None for other paths."""
    match = _STEP_PICTURES.match(path)
    return int(match[1]) if match else None


class EventName(NamedTuple):
    """What the name of an event's object tells; ``writer`` is empty in runs of the first releases."""

    number: int
    writer: str
    kind: str
    step: int


def event_path(name: EventName) -> str:
    """The object of an event."""
    return f"{EVENTS}/{name.number:06d}-{name.writer}-{name.kind}-{name.step:08d}.json"


def parse_event_path(path: str) -> EventName | None:
    """What the name of an event's object tells; None for other paths."""
    match = _EVENT.match(path)
    return EventName(int(match[1]), match[2] or "", match[3], int(match[4])) if match else None


def attempt_path(started: str, writer: str) -> str:
    """The object of an attempt.

    Args:
        started: when, in UTC, such as ``2026-01-31T12:00:00+00:00``.
        writer: eight hexadecimal digits, by which attempts of one second differ.

    Returns:
        Such as ``attempts/20260131T120000-0123abcd.json``.
    """
    return f"{ATTEMPTS}/{started.partition('+')[0].replace('-', '').replace(':', '')}-{writer}.json"


def is_attempt_path(path: str) -> bool:
    """Whether a path is that of an attempt."""
    return _ATTEMPT.match(path) is not None


def is_in_layout(path: str) -> bool:
    """Whether a path is one that a run writes."""
    if path in _SINGLE or any(pattern.match(path) for pattern in (_SEGMENT, _BOARD, _STEP_PICTURES, _TRACKER, _EVENT, _ATTEMPT)):
        return True
    match = _CHECKPOINT_PATH.match(path)
    return match is not None and _IN_CHECKPOINT.match(path[match.end() :]) is not None


def is_of_a_run(path: str) -> bool:
    """Whether only a run has such a path, even one whose configuration is damaged or lost."""
    if path in (LATEST, RAY_REQUESTER) or checkpoint_of(path):
        return True
    if _EVENT.match(path) or _ATTEMPT.match(path):
        return True
    return path.startswith(f"{METRICS}/") and first_step_of(path) is not None
