"""Reads YAML that people write: plain data of YAML 1.2, with the line of every value; all that is unclear is refused.

PyYAML follows YAML 1.1, in which ``2:16`` is 136, ``no`` is false and ``1e-3`` is a text; the rules here are those of 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from crossdim.foundation.local_files import open_regular
from crossdim.foundation.location import local_path
from crossdim.storage_schema.errors import DocumentError, Problem, StorageError, UsageError
from crossdim.storage_schema.names import printable

#: A file of settings is a page; anything larger is another file.
LARGEST_FILE_BYTES = 1 << 18
DEEPEST = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """A value and its place.

    Attributes:
        value: text, number, boolean, None, list or dict of such.
        line: counted from 1.
        text: as it was written, for a scalar.
        items: for a mapping, its values by key.
    """

    value: Any
    line: int
    text: str = ""
    items: dict[str, Located] = field(default_factory=dict)


class _Refusal(yaml.YAMLError):  # type: ignore[misc]
    """What YAML allows and we do not."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Resolves plain scalars as YAML 1.2 does, and bounds the depth; SafeLoader's tags for Python objects do not exist."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; aliases and nodes that are nested too deep are refused."""
        line = self.peek_event().start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            raise _Refusal("aliases (*name) are not read; write the value again", line)
        if self.depth >= DEEPEST:
            raise _Refusal(f"nested more than {DEEPEST} deep", line)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _form, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_form), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}


def read_yaml(path: str, option: str) -> Located:
    """Read a file that holds one mapping.

    Args:
        path: of a regular file on this machine, or of a link to one.
        option: that names the file, for errors.

    Returns:
        The mapping with the line of every value.

    Raises:
        StorageError: if there is no such file, or it cannot be read.
        UsageError: with every key that stands twice, or the first line that is no YAML.
    """
    shown = printable(path)
    try:
        with open(open_regular(local_path(path)), "rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise StorageError(f"{option} {shown} cannot be read: {error.strerror}; name a regular file, or a link to one") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise UsageError(f"{option} {shown} has more than {LARGEST_FILE_BYTES // 1024} KiB; a file of options is a page")
    problems: list[Problem] = []
    try:
        node = _Loader(content.decode("utf-8")).get_single_node()
        found = Located(value={}, line=1) if node is None else _read_node(node, shown, problems)
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {shown} is no text in UTF-8: byte {error.start} is none") from None
    except _Refusal as error:
        raise UsageError(f"{shown}:{error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{shown}:{line}: no YAML: {printable(str(error.problem))}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UsageError(f"{option} {shown} is no YAML: {printable(str(error).splitlines()[0])}") from None
    if not isinstance(found.value, dict):
        raise UsageError(f"{shown}:{found.line}: expected options, such as `recipe: maesil:tiny`; found {found.value!r}")
    if problems:
        raise UsageError(str(DocumentError(shown, problems)))
    return found


def _read_node(node: yaml.Node, file: str, problems: list[Problem]) -> Located:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        read = _SCALARS.get(node.tag)
        if read is None or (node.tag.endswith(":int") and len(node.value) > 40):
            raise _Refusal(f"{node.value[:40]!r} is no text, number or boolean", line)
        try:
            return Located(value=read(node.value), line=line, text=node.value)
        except ValueError:  # of a tag that the value does not have
            raise _Refusal(f"{node.value[:40]!r} is no {node.tag.rpartition(':')[2]}", line) from None
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return Located(value=[_read_node(each, file, problems).value for each in node.value], line=line)
    if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
        raise _Refusal(f"the tag {node.tag} is not read", line)
    items: dict[str, Located] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            raise _Refusal("a key is a text", key_node.start_mark.line + 1)
        if key in items:
            at = f"{file}:{key_node.start_mark.line + 1}"
            problems.append(Problem(loc=at, message=f"{key} stands twice, also in line {items[key].line}"))
        items[key] = _read_node(value_node, file, problems)
    return Located(value={key: item.value for key, item in items.items()}, line=line, items=items)
