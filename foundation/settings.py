"""Configurations as documents: frozen dataclasses to JSON values and back, and typed overrides by dotted path."""

from __future__ import annotations

import functools
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from crossdim.storage_schema.errors import CrossdimError, DocumentError, Problem, UsageError, describe_unknown_name

Config = TypeVar("Config")

#: For a field whose type is a family (an abstract config), the table that names its members.
Families = Mapping[Any, Mapping[str, type]]
KIND = "kind"


#: Types of most fields; checked first, because documents are made for every file that is decoded.
_PLAIN = (str, int, float, bool, type(None))


def to_document(value: Any) -> Any:
    """A configuration as JSON values; members of a family have their name under ``kind``."""
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        name = getattr(value, KIND, None)
        kind = {} if name is None else {KIND: name}
        return kind | {f.name: to_document(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_document(item) for item in value]
    if isinstance(value, dict):
        return {str(k): to_document(v) for k, v in value.items()}
    return value


#: Types in a JSON document, and what is made of them.
_OF_DOCUMENTS = (bool, int, float, str, list, tuple, dict)
#: Annotations are texts; resolving them to types costs more than all the rest.
_hints = functools.cache(typing.get_type_hints)


@functools.cache
def _fields(kind: Any) -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(kind)}


def _read_member(kind: Any, document: Any, loc: str, families: Families, problems: list[Problem]) -> Any:
    table = families[kind]
    name = document.get(KIND) if isinstance(document, dict) else None
    if not isinstance(name, str) or name not in table:
        problems.append(Problem(loc=f"{loc}.{KIND}".lstrip("."), message=describe_unknown_name(KIND, str(name), table)))
        return None
    return _read(table[name], {k: v for k, v in document.items() if k != KIND}, loc, families, problems)


def _read_tree(kind: Any, document: Any, loc: str, families: Families, problems: list[Problem]) -> Any:
    if not isinstance(document, dict):
        problems.append(Problem(loc=loc or "document", message=f"found {document!r}; expected an object"))
        return None
    hints, known = _hints(kind), _fields(kind)
    own = getattr(kind, KIND, None)
    if KIND in document and KIND not in known and own is not None:
        if document[KIND] != own:
            problems.append(Problem(loc=f"{loc}.{KIND}".lstrip("."), message=f"found {document[KIND]!r}; expected {own!r}"))
            return None
        document = {k: v for k, v in document.items() if k != KIND}
    before = len(problems)
    inside = f"{loc}." if loc else ""
    missing = [n for n, f in known.items() if n not in document and f.default is MISSING and f.default_factory is MISSING]
    problems += [Problem(loc=inside + n, message=describe_unknown_name("setting", n, known)) for n in document if n not in known]
    problems += [Problem(loc=inside + n, message="is missing") for n in missing]
    values = {n: _read(hints[n], document[n], inside + n, families, problems) for n in known if n in document}
    return None if len(problems) > before else kind(**values)


def _read(kind: Any, value: Any, loc: str, families: Families, problems: list[Problem]) -> Any:
    """``value`` as an instance of ``kind``; what does not fit is added to ``problems``."""
    if type(value) is kind and kind in (int, str, bool):
        return value
    if kind in families:
        return _read_member(kind, value, loc, families, problems)
    if is_dataclass(kind):
        return _read_tree(kind, value, loc, families, problems)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _read(next(a for a in arguments if a is not type(None)), value, loc, families, problems)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(_read(a, v, f"{loc}[{i}]", families, problems) for i, (a, v) in pairs)
    if origin is typing.Literal and value in arguments:
        return value
    plain = origin or kind
    if isinstance(plain, type) and plain not in _OF_DOCUMENTS and isinstance(value, plain):
        return value  # put in by the caller, such as an array
    if isinstance(kind, type) and issubclass(kind, Enum) and value in [member.value for member in kind]:
        return kind(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:
            return float(value)
        problems.append(Problem(loc=loc, message=f"found {value!r}; expected a finite number"))  # JSON has no other
        return None
    if origin is dict and isinstance(value, dict):
        return value
    named = [str(one).lower() if isinstance(one, bool) else repr(one) for one in arguments]  # truth values as in JSON
    wanted = " or ".join(named) if origin is typing.Literal else getattr(kind, "__name__", str(kind))
    wanted = "a list such as [1, 2]" if origin is tuple and str not in arguments else wanted
    wanted = 'a list such as ["a", "b"]' if origin is tuple and str in arguments else wanted
    problems.append(Problem(loc=loc, message=f"found {value!r}; expected {wanted}"))
    return None


def from_document(kind: type[Config], document: Any, *, subject: str, families: Families | None = None) -> Config:
    """Build a configuration from its document.

    Args:
        kind: dataclass of the configuration.
        document: JSON values, as :func:`to_document` writes them; settings with a default may be missing.
        subject: where the document came from, for the error.
        families: for each field type that is a family, its members by name.

    Returns:
        An instance of ``kind``.

    Raises:
        DocumentError: listing every setting that is unknown, missing or of the wrong type.
    """
    problems: list[Problem] = []
    value = _read(kind, document, "", families or {}, problems)
    if problems:
        raise DocumentError(subject, problems)
    return typing.cast(Config, value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """A change of one setting.

    Attributes:
        text: ``path=value``; the value is JSON, or text.
        where: what asks for it, for errors.
        source: where it is from, for lists of settings.
    """

    text: str
    where: str
    source: str = "command line"

    @property
    def path(self) -> str:
        """Of the setting, such as ``optimizer.lr``."""
        return self.text.partition("=")[0]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise UsageError(f"{where[:40]}: the value is nested too deeply; found {text[:20]!r} and so on") from None
    except ValueError:
        return text


def _replace(config: Any, path: list[str], text: str, families: Families, where: str) -> Any:
    name, *rest = path
    known = [f.name for f in fields(config)] if is_dataclass(config) else []
    if name not in known:
        raise UsageError(f"{where}: {describe_unknown_name('setting', name, known) if known else f'{name} has no settings'}")
    if rest:
        return _set_field(config, name, _replace(getattr(config, name), rest, text, families, where), where)
    problems: list[Problem] = []
    kind = typing.get_type_hints(type(config))[name]
    value = _read(kind, _parse(text, where), name, families, problems)
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()
    if problems and str in (kind, *kinds):  # a text that happens to look like a number
        value, problems = text, []
    if problems:
        inside = [problem.message if problem.loc == name else f"{problem.loc}: {problem.message}" for problem in problems]
        raise UsageError(f"{where}: {'; '.join(inside)}")
    return _set_field(config, name, value, where)


def _set_field(config: Any, name: str, value: Any, where: str) -> Any:
    try:
        return replace(config, **{name: value})
    except CrossdimError as error:  # a value of the right type that the configuration refuses
        raise UsageError(f"{where}: {error}") from None


def _apply(config: Config, override: Override, families: Families) -> Config:
    path, equals, value = override.text.partition("=")
    if not equals:
        raise UsageError(f"--set takes path=value; found {override.text!r}")
    changed: Config = _replace(config, path.split("."), value, families, override.where)
    return changed


def override_settings(config: Config, overrides: Iterable[str | Override], families: Families | None = None) -> Config:
    """Apply ``a.b=value`` to a configuration.

    Args:
        config: dataclass of settings; it is not changed.
        overrides: in the order in which they are applied. Each value is read as JSON, or as text, by the type of its field.
        families: for each field type that is a family, its members by name.

    Returns:
        A copy with the overrides.

    Raises:
        UsageError: with every path that does not exist (and the nearest names), and every value that has the wrong type or is
            refused.
    """
    config, problems = try_overrides(config, overrides, families or {})
    if problems:
        raise UsageError(problems[0] if len(problems) == 1 else "\n  ".join([f"{len(problems)} settings", *problems]))
    return config


def try_overrides(config: Config, overrides: Iterable[str | Override], families: Families) -> tuple[Config, list[str]]:
    """Apply what can be applied.

    Args:
        config: dataclass of settings; it is not changed.
        overrides: as for :func:`override_settings`.
        families: for each field type that is a family, its members by name.

    Returns:
        A copy with the overrides that fit, and what is wrong with the others.
    """
    problems: list[str] = []
    for override in overrides:
        one = override if isinstance(override, Override) else Override(text=override, where=f"--set {override}")
        try:
            config = _apply(config, one, families)
        except UsageError as error:
            problems.append(str(error))
    return config, problems
