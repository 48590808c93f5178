r"""Names of files: how names that are not UTF-8 are written, and how any name is shown on a terminal.

The operating system gives names as bytes. Python keeps bytes that are not UTF-8 as lone surrogates, which neither JSON in
UTF-8 nor Arrow can hold. In plans, catalogs and tables such a byte is written as ``\xfc`` (the file ``M\xfcller.png`` came
from Latin-1). A name that really holds a backslash followed by such letters has that backslash written as ``\x5c``, so every
written name leads back to exactly one file; all other names are written as they are.
"""

from __future__ import annotations

import re
import unicodedata

_FIRST_SURROGATE = 0xDC00
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]|\\(?=x(?:5c|[89a-f][0-9a-f]))")
_WRITTEN = re.compile(r"\\x(5c|[89a-f][0-9a-f])")
#: Controls (escape sequences start with one), invisible formatting such as bidirectional overrides, lone surrogates, and
#: the separators of lines and paragraphs.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape_name(name: str) -> str:
    """Write a name from the operating system, whose bytes that are not UTF-8 are surrogates, as valid UTF-8."""
    return _NOT_UTF8.sub(lambda found: rf"\x{ord(found[0]) & 0xFF:02x}", name)


def unescape_name(written: str) -> str:
    """The name that :func:`escape_name` wrote."""
    return _WRITTEN.sub(lambda found: _decode_escape(int(found[1], 16)), written)


def _decode_escape(byte: int) -> str:
    return "\\" if byte == ord("\\") else chr(_FIRST_SURROGATE + byte)


def printable(text: str, keep: str = "") -> str:
    r"""Escape what could change a terminal or a log: control, formatting and undecodable characters, as ``\x1b``.

    Args:
        text: for example the name of a file, chosen by somebody else.
        keep: characters that stay, such as the newlines of a text of several lines.

    Returns:
        The text, with each such character as ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNPRINTABLE else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= _FIRST_SURROGATE
    return rf"\x{code:02x}" if code < 0x100 else rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"
