"""How a request differs from the one that a dataset was made for, of which only digests are stored.

A dataset holds no command line, so that its bytes are the same wherever it is made. Nearly all options have few values, so
those that give the digest are found by trying them, and an equal digest proves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, combinations, product
from typing import Any, get_args

from crossdim.pipelines.jobs.names import NameRule
from crossdim.pipelines.readers.raw import BurnedIn, Frames, GapRule, TiltRule
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.split import SplitBy
from crossdim.storage_schema.vocabulary import Modality

#: Settings that a message names.
MAX_NAMED = 4
#: Options by the settings that they make; those of a recipe are made by ``--set``.
_OPTIONS = {
    "name": "--name",
    "split.test_fraction": "--test-fraction",
    "split.by": "--split-by",
    "modality": "--modality",
    "label_by_folder": "--label folder",
    "include_label_maps": "--include-label-maps",
    "source_names": "--source-names",
    "labels": "--labels",
    "recipe.read.burned_in": "--burned-in",
    "recipe.read.tilt": "--tilt",
    "recipe.read.gaps": "--gaps",
}
_FRACTIONS = sorted({n / 100 for n in range(100)} | {1 / n for n in range(2, 11)})


def list_likely_values(name: str, now: Any) -> list[Any]:
    """List the values that a setting is likely to have had.

    Args:
        name: of the setting.
        now: its value in the present request.

    Returns:
        JSON values; none for a setting with too many possible values.
    """
    if name == "split":
        return [now | {"test_fraction": fraction, "by": by} for fraction, by in product(_FRACTIONS, get_args(SplitBy))]
    if name == "recipe":
        names = ("burned_in", "frames", "tilt", "gaps")
        rules = product(get_args(BurnedIn), get_args(Frames), get_args(TiltRule), get_args(GapRule))
        return [now | {"read": now.get("read", {}) | dict(zip(names, values, strict=True))} for values in rules]
    few: dict[str, list[Any]] = {
        "modality": [None, *map(str, Modality)],
        "label_by_folder": [False, True],
        "include_label_maps": [False, True],
        "source_names": list(get_args(NameRule)),
        "labels": [None],
    }
    return few.get(name, [])


def find_settings(now: Mapping[str, Any], is_it: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
    """Find the settings that a dataset was made with, if at most two differ from the present ones and have likely values.

    Args:
        now: the settings of the present request.
        is_it: whether settings give the digest that is known.

    Returns:
        The settings; None if they are not found.
    """
    tried = {name: [value for value in list_likely_values(name, now[name]) if value != now[name]] for name in now}
    for changed in chain([()], ((name,) for name in tried), combinations(tried, 2)):
        for values in product(*(tried[name] for name in changed)):
            settings = {**now, **dict(zip(changed, values, strict=True))}
            if is_it(settings):
                return settings
    return None


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe what settings were and are, such as ``--test-fraction: 0.2 there, 0.3 here``.

    Args:
        before: the settings of the dataset.
        now: the settings of the present request.

    Returns:
        One text, with at most ``MAX_NAMED`` settings; empty if they are equal.
    """
    old, new = dict(_iterate_leaves("", before)), dict(_iterate_leaves("", now))
    differing = [path for path in dict.fromkeys([*old, *new]) if old.get(path) != new.get(path)]
    listed = [f"{_format_option(path)}: {_format_value(path, old)} there, {_format_value(path, new)} here" for path in differing]
    more = [f"{len(listed) - MAX_NAMED} more"] if len(listed) > MAX_NAMED else []
    return "; ".join([*listed[:MAX_NAMED], *more])


def replace_recorded(recipe: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Replace those of a recipe's settings that a manifest records.

    Args:
        recipe: its settings.
        recorded: the manifest's ``preprocessing``.

    Returns:
        A copy with the recorded values of the settings that the recipe has.
    """
    merged = dict(recipe)
    for name in recipe.keys() & recorded.keys():
        old, new = recipe[name], recorded[name]
        merged[name] = replace_recorded(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else new
    return merged


def _iterate_leaves(path: str, document: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(document, Mapping) or path == "labels":
        yield path, document
        return
    for name, value in document.items():
        yield from _iterate_leaves(f"{path}.{name}" if path else name, value)


def _format_option(path: str) -> str:
    return _OPTIONS.get(path) or (f"--set {path.removeprefix('recipe.')}" if path.startswith("recipe.") else path)


def _format_value(path: str, leaves: Mapping[str, Any]) -> str:
    value = leaves.get(path)
    if path == "labels":
        return "none" if value is None else "a table"
    if isinstance(value, bool) and path in _OPTIONS:
        return "given" if value else "not given"
    return "none" if value is None else canonical_json(value).decode().strip('"')
