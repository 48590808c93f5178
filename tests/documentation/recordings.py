"""The journeys as a terminal shows them: typed into tmux, and kept as recordings and as a page.

``test_journeys`` types them, and holds what comes out against what is kept. With ``CROSSDIM_RECORD=1`` it
keeps the new ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.documentation.blocks import PAGES, ROOT, find_blocks
from tests.documentation.cast import Event, join_events, write_cast
from tests.documentation.terminal import PROMPT, SIZE, Shown, Terminal
from tests.programs import PROGRAMS

FOLDER = PAGES / "recordings"
#: What stands in recordings for the folder of the test and for its server.
HOME, STORE, DASHBOARD = "/home/lab", "http://store.local:9000", "http://127.0.0.1:8265"
TITLES = {"own-files": "Your own files on one machine", "cluster": "A cluster", "own-loop": "Streaming into your own loop"}
ABOUT = {
    "own-files": "The output of [this journey](../journeys/own-files.md) on generated phantoms. "
    "Pretraining is interrupted once with Ctrl-C, and resumed by the same command.",
    "cluster": "The output of [this journey](../journeys/cluster.md) on a Ray head and a node with two CPUs, with smaller "
    "settings: tiny recipes, six steps, no GPU, a few generated phantoms in the bucket.",
    "own-loop": "The program of [this journey](../journeys/own-loop.md) as `loop.py`, run twice: the second time it resumes.",
}
_CAST = "To replay it in a terminal, give [`{name}.cast`]({name}.cast) to `asciinema play`."
#: Figures, and the units of long times.
_FIGURES = ((r"[+-]?\d[\d.,:]*", "#"), (r"# (?:s|min|h)\b(?: # s\b)?", "# s"))
#: What is another each time: ports of served pages, times, numbers and addresses of Ray.
_OF_THE_MOMENT = (
    (r"http://127\.0\.0\.1:\d+/ ", "http://127.0.0.1:8000/ "),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "2026-01-01 12:00:00,000 "),
    (r"raysubmit_\w+", "raysubmit_1"),
    (r"_ray_pkg_[0-9a-f]+", "_ray_pkg_1"),
    (r"[\d.]+:\d+ was joined", "10.0.0.5:6379 was joined"),
    (r"Ray machine [\d.]+ \(\w+\)", "Ray machine 10.0.0.5 (1a2b3c)"),
)
#: Lines that tell what became of a command. Listings, tables and progress have tests of their own, and change with every option.
_STORY = re.compile(
    r"^\$ |^Exit code|^published |^files: |^next: |^look at it: | is whole: |^interrupted; |: resuming from | trained from step "
    r"|: done, step |^(?:page|report|table): |: nothing was written | shows the page |^removed | samples seen$|' succeeded$"
    r"|^Dataset '|checks; failures: 0"
)
#: Lines of what a command printed that the page shows from its beginning, and from its end.
HEAD_LINES, TAIL_LINES = 16, 6
#: A bar at this step: the moment at which Ctrl-C is pressed.
INTERRUPTED = re.compile(r"pretrain: .*\| *[1-3]\d/40\b")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A journey that was typed: its commands with what they showed, and all bytes that the terminal was sent."""

    shown: list[Shown]
    events: list[Event]

    def replace(self, texts: Mapping[str, str]) -> Recording:
        """The same with other texts: names of temporary folders and of servers tell a reader nothing."""

        def change(text: str) -> str:
            for old, new in texts.items():
                text = text.replace(old, new)
            for old, new in _OF_THE_MOMENT:
                text = re.sub(old, new, text)
            return text

        shown = [replace(one, command=change(one.command), text=change(one.text)) for one in self.shown]
        return Recording(shown=shown, events=[(at, kind, change(text)) for at, kind, text in join_events(self.events)])


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a shell of a recording inherits: programs of the tests, no credentials and no session of Ray."""
    paths = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(home)}
    return paths | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"} | more


@contextlib.contextmanager
def terminal(folder: Path, settings: Mapping[str, str]) -> Iterator[Terminal]:
    """A terminal in a folder; its own files lie elsewhere, and its socket has a short path."""
    with tempfile.TemporaryDirectory(prefix="cd-", dir="/tmp") as own, Terminal(folder, settings, Path(own)) as found:
        yield found


def record_own_files(folder: Path) -> Recording:
    """The journey of one machine, with one thing more: pretraining is interrupted, and typed again."""
    names = iter(("phantoms.py", "nearest.py"))
    with terminal(folder, environment(folder)) as screen:
        shown: list[Shown] = []
        for language, block in find_blocks((PAGES / "journeys/own-files.md").read_text(), "python", "sh"):
            if language == "python":
                name = next(names)
                (folder / name).write_text(block)
                shown.append(screen.run(f"python {name}"))
                continue
            for line in (one for one in block.splitlines() if not one.startswith("pip install")):
                if line.startswith("crossdim pretrain") and "--print-config" not in line:
                    shown.append(_interrupt(screen, line))
                shown.append(screen.run(line))
        return Recording(shown=shown, events=screen.events()).replace({str(folder): HOME})


def record_own_loop(folder: Path, endpoint_url: str) -> Recording:
    """The journey of a loop of one's own against a server, twice: the second time it resumes."""
    keys = folder / "lab.ini"
    keys.touch(0o600)
    keys.write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    blocks = find_blocks((PAGES / "journeys/own-loop.md").read_text(), "python")
    text = "\n".join(block for _, block in blocks)
    (folder / "loop.py").write_text(text.replace(STORE, endpoint_url))
    with terminal(folder, environment(folder)) as screen:
        shown = [screen.run("python loop.py") for _ in range(2)]
        return Recording(shown=shown, events=screen.events()).replace({str(folder): HOME, endpoint_url: STORE})


def run_line(screen: Terminal, line: str) -> Shown:
    """Type a line and wait for its end. What serves a page is ended with Ctrl-C, and a question is answered with yes."""
    screen.type(line)
    if line.endswith("--serve"):
        screen.wait_for(lambda text: text.endswith("shows the page until Ctrl-C"))
        screen.press("C-c")
    elif " runs rm " in line:
        screen.wait_for(lambda text: text.endswith("[y/N]"))
        screen.answer("y")
    return screen.finish(line)


def _interrupt(screen: Terminal, line: str) -> Shown:
    screen.type(line)
    screen.wait_for(lambda text: bool(INTERRUPTED.search(text)), patience_s=120)
    screen.press("C-c")
    return screen.finish(line)


def write_page(name: str, shown: list[Shown]) -> str:
    """A recording as a page: each command, what it printed, shortened in its middle, and an exit code that is not 0."""
    parts = [f"# {TITLES[name]}: in a terminal\n\n{ABOUT[name]}\n\n{_CAST.format(name=name)}"]
    for one in shown:
        code = f"\n\nExit code {one.code}." if one.code else ""
        parts.append(f"```console\n{PROMPT}{one.command}\n{_shorten(one.text)}```{code}")
    return "\n\n".join(parts) + "\n"


def _shorten(text: str) -> str:
    lines = text.splitlines()
    left_out = len(lines) - HEAD_LINES - TAIL_LINES
    if left_out > 1:
        lines[HEAD_LINES:-TAIL_LINES] = [f"... {left_out} more lines ..."]
    return "".join(f"{line}\n" for line in lines)


def tell_story(page: str) -> list[str]:
    """What two recordings of a journey have in common: commands, exit codes and lines that tell the outcome, without figures."""
    return [leave_out_figures(line) for line in page.splitlines() if _STORY.search(line)]


def leave_out_figures(line: str) -> str:
    """A line with a sign in the place of each figure; commands and exit codes stay as they are."""
    if line.startswith((PROMPT, "Exit code")):
        return line
    for found, shown in _FIGURES:
        line = re.sub(found, shown, line)
    return " ".join(line.split())


def write(name: str, recording: Recording) -> None:
    """Keep a recording, as a page and as a file for players."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(write_page(name, recording.shown))
    write_cast(FOLDER / f"{name}.cast", recording.events, title=TITLES[name], size=SIZE)


def hold_against_what_is_kept(name: str, recording: Recording) -> None:
    """The same commands with the same exit codes and lines; no traceback; bars that stand on one line each."""
    if os.environ.get("CROSSDIM_RECORD"):
        write(name, recording)
    text = "".join(one.text for one in recording.shown)
    assert "Traceback" not in text
    assert all(line.count("%|") <= 1 for line in text.splitlines()), "a bar that was drawn behind another"
    assert all(one.text.count(f"{verb}: 100%") <= 1 for one in recording.shown for verb in ("scan", "prepare", "pretrain"))
    assert tell_story(write_page(name, recording.shown)) == tell_story((FOLDER / f"{name}.md").read_text())
