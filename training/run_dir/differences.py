"""Describes how the run in a folder differs from the run of the command line, in the terms of the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Settings that a message names; of more it gives the number.
MAX_SETTINGS = 5
_ABSENT = object()

Identity = Mapping[str, Any]


def describe_differences(before: Identity, now: Identity) -> str:
    """Describe where two identities differ.

    Args:
        before: identity of the run in the folder, see ``crossdim.training.launch.worker.build_identity``.
        now: of the run of the command line.

    Returns:
        A phrase for each difference; an empty text if there is none.
    """
    found = [*_compare_settings(before.get("config", {}), now.get("config", {})), *_compare_datasets(before, now)]
    if (modules := [identity.get("extensions") for identity in (before, now)])[0] != modules[1]:
        found.append(f"its extensions were {_format_value(modules[0] or [])} and are {_format_value(modules[1] or [])}")
    if not found and before != now:
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        found = [f"its {' and '.join(names)} cannot be read or are of another version of crossdim"]
    return "; ".join(found)


def _compare_settings(before: Any, now: Any) -> Iterator[str]:
    methods = [config.get("method", {}).get("kind") for config in (before, now)]
    if methods[0] != methods[1]:
        yield f"it was started with a recipe of {methods[0]}, and this recipe is of {methods[1]}"
        return
    changed = list(_find_changes(before, now, ""))
    yield from (f"{path} was {_format_value(was)} and is {_format_value(value)}" for path, was, value in changed[:MAX_SETTINGS])
    if (more := len(changed) - MAX_SETTINGS) > 0:
        yield f"and {more} more setting{'' if more == 1 else 's'}"


def _find_changes(before: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Find path, old and new value of every setting that differs; of another member of a family only which it is."""
    if before == now:
        return
    if not isinstance(before, dict) or not isinstance(now, dict):
        yield path, before, now
        return
    if before.get("kind") != now.get("kind"):
        yield f"{path}.kind".lstrip("."), before.get("kind"), now.get("kind")
        return
    for name in sorted(before.keys() | now.keys()):
        yield from _find_changes(before.get(name, _ABSENT), now.get(name, _ABSENT), f"{path}.{name}".lstrip("."))


def _format_value(value: Any) -> str:
    """Format a value as ``--set`` takes it."""
    if value is _ABSENT:
        return "not there"
    if isinstance(value, dict) and "kind" in value:
        return str(value["kind"])
    return value if isinstance(value, str) else json.dumps(value)


def _compare_datasets(before: Identity, now: Identity) -> Iterator[str]:
    was, given = before.get("datasets", []), now.get("datasets", [])
    if was == given:
        if before.get("weights") != now.get("weights"):
            weights = (":".join(map(str, one.get("weights", []))) for one in (before, now))
            yield "the weights of {} were {} and are {}".format(_join_names(given), *weights)
        return
    if sorted(map(json.dumps, was)) == sorted(map(json.dumps, given)):
        yield f"the datasets are in another order: they were {_join_names(was)} and are {_join_names(given)}"
        return
    if [one["name"] for one in was] != [one["name"] for one in given]:
        yield f"the datasets were {_join_names(was)} and are {_join_names(given)}"
        return
    for old, new in zip(was, given, strict=True):
        if old["preprocessing"] != new["preprocessing"]:
            yield f"the dataset {new['name']} was prepared with another recipe or other settings than the run's {old['name']}"
        elif old != new:
            removed = "the version that it began with was removed (crossdim gc), or the dataset was prepared again"
            yield f"the dataset {new['name']} has other content than the run's {old['name']}: {removed}"


def _join_names(datasets: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(one["name"]) for one in datasets) or "none"
