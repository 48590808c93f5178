"""A terminal of fixed size in tmux, into which commands are typed, and what it showed."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.documentation.cast import Event, read_events

#: Columns and rows.
SIZE = (110, 32)
PROMPT = "$ "
_CAST = Path(__file__).with_name("cast.py")
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One command: what was typed, what stood below it when it had ended, and its exit code."""

    command: str
    text: str
    code: int


class Terminal:
    """A shell in tmux, with a server of its own. To be used with ``with``, which ends it.

    Args:
        folder: where the shell begins.
        environment: of the shell; nothing else is inherited.
        own: an empty folder for the server's socket and notes. Its path is short, because a socket's path has to be.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], own: Path) -> None:
        self._socket, self._codes, self._events, self._typed = own / "socket", own / "codes", own / "events", 0
        (own / "inputrc").write_text("set enable-bracketed-paste off\n")
        own_settings = {
            "PS1": PROMPT,
            "PROMPT_COMMAND": f"echo $? >> {shlex.quote(str(self._codes))}",
            "INPUTRC": str(own / "inputrc"),
            "LANG": "C.UTF-8",
        }
        self._environment = {**environment, **own_settings}
        width, height = (str(number) for number in SIZE)
        shell = ["env", *(f"{k}={v}" for k, v in own_settings.items()), "bash", "--norc", "--noprofile"]
        start = ["new-session", "-d", "-x", width, "-y", height, "-c", str(folder), shlex.join(shell)]
        recorder = shlex.join([sys.executable, str(_CAST), str(self._events)])
        self._tmux("set-option", "-g", "history-limit", "20000", ";", *start, ";", "pipe-pane", f"exec {recorder}")
        self._wait(lambda: self._num_codes() == 1 and self._events.exists(), 30)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._tmux("kill-server")

    def run(self, command: str, *, patience_s: float = 400) -> Shown:
        """Type a command and wait for its end.

        Args:
            command: one line.
            patience_s: seconds that it may take.

        Returns:
            What it showed.

        Raises:
            TimeoutError: it did not end.
        """
        self.type(command)
        return self.finish(command, patience_s=patience_s)

    def type(self, command: str) -> None:
        """Type a line and Enter."""
        self._typed += 1
        self.answer(command)

    def answer(self, text: str) -> None:
        """Type an answer and Enter to what a command asks."""
        self._tmux("send-keys", "-l", text, ";", "send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press a key by tmux's name for it, such as ``C-c``."""
        self._tmux("send-keys", key)

    def finish(self, command: str, *, patience_s: float = 400) -> Shown:
        """Wait for the end of the command that was typed last.

        Args:
            command: that command.
            patience_s: seconds that it may take.

        Returns:
            What it showed.

        Raises:
            TimeoutError: it did not end.
        """
        self._wait(lambda: self._num_codes() == self._typed + 1 and self.text().endswith(PROMPT.strip()), patience_s)
        text = self.text().removesuffix(PROMPT.strip()).rstrip()
        _, _, below = text.rpartition(f"{PROMPT}{command}")
        return Shown(command=command, text=below.strip("\n"), code=int(self._codes.read_text().split()[-1]))

    def wait_for(self, condition: Callable[[str], bool], *, patience_s: float = 400) -> str:
        """Wait until the screen shows something.

        Args:
            condition: of the text of the screen.
            patience_s: seconds that it may take.

        Returns:
            The screen that the condition accepted.

        Raises:
            TimeoutError: it was not seen.
        """
        seen: list[str] = []

        def look() -> bool:
            seen[:] = [self.screen()]
            return condition(seen[0])

        self._wait(look, patience_s)
        return seen[0]

    def screen(self) -> str:
        """What is seen now."""
        return self._tmux("capture-pane", "-p").rstrip()

    def text(self) -> str:
        """All that was shown, with lines that were too long for the screen put together again."""
        lines = self._tmux("capture-pane", "-p", "-J", "-S", "-").splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip()

    def events(self) -> list[Event]:
        """Every byte that was sent to the terminal, with its seconds."""
        return read_events(self._events)

    def _num_codes(self) -> int:
        return len(self._codes.read_text().split()) if self._codes.exists() else 0

    def _wait(self, condition: Callable[[], bool], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {patience_s:.0f} s; the terminal shows\n{self.screen()}")
            time.sleep(_LOOK_EVERY_S)

    def _tmux(self, *command: str) -> str:
        line = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *command]
        return subprocess.run(line, env=self._environment, check=True, capture_output=True, text=True, timeout=60).stdout
