"""Versions of a dataset: where the manifests of earlier ones are, and how objects of later ones are called.

``manifest.json`` is always the newest version. A dataset to which nothing was added has no other manifest, and is version 1.
Once something is added, every version is also found as ``manifests/v<number>.json``, with the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MANIFESTS = "manifests"
_VERSION = re.compile(rf"{MANIFESTS}/v([1-9][0-9]*)\.json\Z")


def version_path(version: int) -> str:
    """Path of the manifest of a version inside the dataset, where there are several."""
    return f"{MANIFESTS}/v{version}.json"


def find_versions(paths: Iterable[str]) -> list[int]:
    """Find the numbers of the versions among the paths of a dataset, in order."""
    return sorted(int(found[1]) for path in paths if (found := _VERSION.match(path)))


def name_of_version(name: str, version: int) -> str:
    """Name that the shards which a version adds begin with.

    Args:
        name: of the dataset.
        version: that adds them.

    Returns:
        The name alone for version 1, else with the number behind it.
    """
    return name if version == 1 else f"{name}-v{version}"


def table_part_path(role: str, number: int, version: int) -> str:
    """Path of one part of a table inside a dataset.

    Args:
        role: of the table, which is also its folder.
        number: of the part.
        version: that the table belongs to.

    Returns:
        ``catalog/part-00000.parquet``, and of later versions ``catalog/v2/part-00000.parquet``.
    """
    folder = role if version == 1 else f"{role}/v{version}"
    return f"{folder}/part-{number:05d}.parquet"


def inputs_path(plan_digest: str) -> str:
    """Path of the writer's record of what a version was made from, which no manifest names."""
    return f"inputs/{plan_digest[:16]}.json"
