"""Recordings in the format asciicast 2 of asciinema: https://docs.asciinema.org/manual/asciicast/v2/.

As a program, ``python tests/documentation/cast.py FILE``, it writes what comes from standard input as events with their seconds:
for ``tmux pipe-pane``.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

#: Events that are nearer to each other are one: a bar that is drawn ten times a second needs no more.
APART_S = 0.25
#: Players shorten longer pauses to this.
PAUSE_S = 2.0
Event = tuple[float, str, str]


def stamp(file: Path) -> None:
    """Write standard input to a file as events, as it comes.

    Args:
        file: one JSON list a line, of seconds, ``"o"`` and text.
    """
    decoder, began = codecs.getincrementaldecoder("utf-8")("replace"), time.monotonic()
    with file.open("w") as events:
        while data := os.read(0, 65536):
            events.write(json.dumps([round(time.monotonic() - began, 3), "o", decoder.decode(data)], ensure_ascii=False) + "\n")
            events.flush()


def read_events(file: Path) -> list[Event]:
    """Read the events that ``stamp`` wrote, or those of a whole recording.

    Args:
        file: with or without the header of a recording.

    Returns:
        Seconds, kind and text of each.
    """
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [tuple(row) for row in rows if isinstance(row, list)]


def write_cast(file: Path, events: Iterable[Event], *, title: str, size: tuple[int, int]) -> None:
    """Write a recording.

    Args:
        file: to write, ``.cast``.
        events: in order of time.
        title: what is shown.
        size: columns and rows of the terminal.
    """
    header = {"version": 2, "width": size[0], "height": size[1], "idle_time_limit": PAUSE_S, "title": title}
    lines = [json.dumps(header)] + [json.dumps(event, ensure_ascii=False) for event in join_events(events)]
    file.write_text("\n".join(lines) + "\n")


def join_events(events: Iterable[Event]) -> list[Event]:
    """Join events that are near to each other."""
    joined: list[Event] = []
    for at, kind, text in events:
        if joined and at - joined[-1][0] < APART_S:
            joined[-1] = (joined[-1][0], kind, joined[-1][2] + text)
        else:
            joined.append((at, kind, text))
    return joined


if __name__ == "__main__":
    stamp(Path(sys.argv[1]))
