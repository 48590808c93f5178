"""Texts for reasons: what a library says of a file, without anything that differs between processes, machines or runs.

Reasons are published and are part of a plan's digest. So equal inputs must give equal texts: no address, no time, no path of this
machine, no process id; and nothing quoted from a file, which may name a patient.
"""

from __future__ import annotations

import re

#: Longest text taken from another library.
MAX_CHARACTERS = 300

_OBJECT = re.compile(r"<[^<>]*\bat 0x[0-9a-fA-F]+[^<>]*>")
_ADDRESS = re.compile(r"\b0[xX][0-9a-fA-F]{7,}")
_SET = re.compile(r"\{([^{}:]*)\}")

#: What is removed from the text of another library, in this order.
_FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\""), "'...'"),  # values of the file, and names of files
    (re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://\S+"), "a URL"),
    (re.compile(r"(?<![\w.])(?:~|\.{1,2})?/[^\s'\",;:()<>]*|\b[A-Za-z]:[\\/][^\s'\",;()<>]*"), "a path"),
    (re.compile(r"\ba path:\d+(?=:)"), "a path"),
    (re.compile(r",? ?\bline \d+\b"), ""),
    (re.compile(r"\btmp[a-z0-9_]{6,}\S*"), "a temporary file"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "an identifier"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?|\b\d{1,2}:\d\d:\d\d\b"), "a time"),
    (re.compile(r"\b(pid|process|thread)([ =:#]+)\d+", re.IGNORECASE), r"\1"),
    (re.compile(r"\b\d{12,}\b"), "a number"),
)


def format_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """Format a Python warning without the file, line and source of the library that gives it; for :func:`warnings.formatwarning`.

    Args:
        message: the text.
        category: class of the warning.
        filename: not shown.
        lineno: not shown.
        line: not shown.

    Returns:
        One line, ``Category: message``.
    """
    return f"{category.__name__}: {message}\n"


def remove_addresses(text: str) -> str:
    """Replace objects and addresses of this process in a text: a last check of sentences of our own."""
    while (shorter := _OBJECT.sub("an object", text)) != text:  # an object's text may hold another's
        text = shorter
    return _ADDRESS.sub("an address", text)


def format_foreign_text(error: BaseException) -> str:
    """Format the text of another library's exception: on one line, and the same in every process.

    Quoted values are left out, members of a set are sorted (their order differs between processes), and long texts are cut.
    """
    text = remove_addresses(" ".join(str(error).split()))
    text = "".join(character if character.isprintable() else " " for character in text)
    for pattern, word in _FOREIGN:
        text = pattern.sub(word, text)
    text = _SET.sub(lambda found: "{" + ", ".join(sorted(part.strip() for part in found[1].split(","))) + "}", text)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
