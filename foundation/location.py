"""Location: the only place where storage arguments are parsed: ``~``, repeated and trailing slashes, ``file://`` and weights.

A location is a folder of this machine, written as an absolute path, or a URL. In a path ``a//b`` is ``a/b``; in a URL of an
object store it is not, because there a key may hold empty names. A slash at the end means "folder" and nothing more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.names import printable

LOCAL_PROTOCOLS = ("file", "local")
S3_PROTOCOLS = ("s3", "s3a")
WEB_PROTOCOLS = ("http", "https")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: The usual protocols with one slash or none after the colon: a typing error that would otherwise mean a folder ``s3:``.
_ONE_SLASH = re.compile(r"(s3a?|gs|gcs|abfss?|az|https?|file):(?!//)", re.IGNORECASE)

#: User information of a URL, alone and within a text; and the query of a web address. In S3 keys ``?`` is a plain character.
_USER = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^/]*@")
_USER_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]*@")
_QUERY_IN_TEXT = re.compile(r"(https?://[^\s?#'\"]*)\?[^\s'\"]+", re.IGNORECASE)


def protocol_of(url: str) -> str:
    """The scheme of a URL; ``file`` for a plain path."""
    found = _PROTOCOL.match(url)
    return found[1].lower() if found else "file"


def format_location(location: str) -> str:
    """Format a location for messages: in one line, without user, password or signed query."""
    return printable(hide_secrets(_USER.sub(r"\1***@", location)))


def remove_user(url: str) -> str:
    """A URL without user and password."""
    return _USER.sub(r"\1", url)


def hide_secrets(text: str) -> str:
    """Replace the user information of every URL in a text, and the query of web addresses; both may be secrets."""
    return _QUERY_IN_TEXT.sub(r"\1?***", _USER_IN_TEXT.sub(r"\1***@", text))


def split_query(url: str) -> tuple[str, str]:
    """Split a location into the part before the query, and the query with its ``?``. Only web addresses have one."""
    base, mark, query = url.partition("?") if protocol_of(url) in WEB_PROTOCOLS else (url, "", "")
    return base, mark + query


def is_local(url: str) -> bool:
    """Whether a location is a folder of this machine."""
    return protocol_of(url) in LOCAL_PROTOCOLS


def parse_location(text: str) -> str:
    """Parse a user's storage argument: an absolute path, or a URL without slashes at its end.

    Raises:
        UsageError: if it is not a location, or looks like a typing error.
    """
    if not text.strip():
        raise UsageError("an empty text names no folder; for the current one write .")
    if "\0" in text:
        raise UsageError(f"{format_location(text)} holds a NUL character, which no name of a file or object can")
    if (found := _ONE_SLASH.match(text)) and not os.path.exists(text):
        meant = format_location(f"{found[1].lower()}://{text[found.end() :].lstrip('/')}")
        raise UsageError(f"{format_location(text)} names no store; did you mean {meant}?")
    if is_local(text):
        return local_path(text)
    protocol, rest = protocol_of(text), text.split("://", 1)[1].rstrip("/")
    if not rest or (protocol in S3_PROTOCOLS and rest.startswith("/")):
        raise UsageError(f"{format_location(text)} names no bucket; write {protocol}://BUCKET/FOLDER")
    if protocol in S3_PROTOCOLS and "?versionId=" in rest:
        raise UsageError(f"{format_location(text)}: versions of objects cannot be named; leave ?versionId= out")
    return f"{protocol}://{rest}"


def local_path(text: str) -> str:
    """The absolute path of a local location: without ``~``, ``.``, ``..`` and needless slashes.

    Raises:
        UsageError: for a home that does not exist, or a host in a ``file://`` URL.
    """
    path = _strip_protocol(text)
    if path.startswith("~") and not os.path.lexists(path):
        path = _expand_home(path)
    if ".." in path.split("/"):  # of a folder behind a link, the parent is where the link leads
        return os.path.realpath(path)
    return "/" + os.path.abspath(path).lstrip("/")  # POSIX lets two slashes at the start mean something else


def _strip_protocol(text: str) -> str:
    if not _PROTOCOL.match(text):
        return text
    host, slash, path = text.split("://", 1)[1].partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f"{format_location(text)}: a file URL holds an absolute path; write file:///FOLDER, or the path alone")
    return f"/{path}"


def _expand_home(path: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded == path:
        name = path.split("/", 1)[0]
        raise UsageError(
            f"{printable(path)}: there is no home folder {printable(name)}; for a folder of that name write ./{name}"
        )
    return expanded


def split_weight(text: str, exists: Callable[[str], bool]) -> tuple[str, float]:
    """Split ``URL:WEIGHT`` into location and weight; a location alone has weight 1.

    Names may end like weights, as ``set:2`` and ``2026-05-01T10:30`` do: what exists decides. A slash decides as well:
    ``set:2/`` is a name, ``set/:2`` a weight.

    Args:
        text: the argument.
        exists: whether there is something at a location.

    Returns:
        The parsed location, and the weight.

    Raises:
        UsageError: if both readings exist, or there is neither a weight nor such a location.
    """
    place, colon, last = text.rpartition(":")
    if not colon or not place or last.startswith("//") or last.endswith("/"):
        return parse_location(text), 1.0
    if protocol_of(place) in S3_PROTOCOLS and "/" not in place.split("://", 1)[1]:
        exists = _exists_not  # no bucket's name holds a colon
    whole = parse_location(text)
    try:
        weight = float(last)
    except ValueError:
        if exists(whole):
            return whole, 1.0
        raise UsageError(
            f"{format_location(text)} does not exist, and {printable(last)!r} is no weight; "
            "a dataset is given as URL or URL:WEIGHT"
        ) from None
    if place.endswith("/") or not exists(whole):
        return parse_location(place), weight
    if exists(parse_location(place)):
        shown = format_location(text)
        raise UsageError(
            f"{shown} can be read in two ways, and both exist: the dataset {shown}, or the dataset {format_location(place)} with "
            f"weight {last}. Write {shown}:1 for the first, {format_location(place)}/:{last} for the second"
        )
    return whole, 1.0


def _exists_not(_: str) -> bool:
    return False


def contains(outer: str, inner: str) -> bool:
    """Whether one location is another or lies in it, after following links.

    Args:
        outer: as parsed.
        inner: as parsed. A folder that does not exist yet counts by where it would be made.

    Returns:
        True if ``inner`` is ``outer`` or lies in it.
    """
    if is_local(outer) != is_local(inner):
        return False
    if is_local(outer):
        return _folder_contains(local_path(outer), local_path(inner))
    return f"{_object_name(inner)}/".startswith(f"{_object_name(outer)}/")


def is_same_place(first: str, second: str) -> bool:
    """Whether two locations are the same folder, after following links.

    Args:
        first: as parsed.
        second: as parsed.

    Returns:
        True if each contains the other.
    """
    return contains(first, second) and contains(second, first)


def _object_name(url: str) -> str:
    protocol = protocol_of(url)
    rest = url.split("://", 1)[1].rstrip("/")
    return f"{S3_PROTOCOLS[0] if protocol in S3_PROTOCOLS else protocol}://{rest}"


def _folder_contains(outer: str, inner: str) -> bool:
    """By name and after following links: the content of a linked folder can be read under both names."""
    return any(_holds(os.path.realpath(outer), path) for path in (inner, os.path.realpath(inner)))


def _holds(outer: str, inner: str) -> bool:
    if f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/"):
        return True
    while not os.path.exists(inner):
        inner = os.path.dirname(inner)
    if not os.path.exists(outer):
        return False
    while not os.path.samefile(outer, inner):  # also where two names of one folder differ: letter case, a second mount
        if inner == os.path.dirname(inner):
            return False
        inner = os.path.dirname(inner)
    return True
