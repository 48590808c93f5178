"""Versions of a dataset: where the manifests of earlier ones are, and how objects of later ones are called.

``manifest.json`` is always the newest version. A dataset to which nothing was added has no other manifest, and is version 1.
Once something is added, every version is also found as ``manifests/v<number>.json``, with the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MANIFESTS = "manifests"
_VERSION = re.compile(rf"{MANIFESTS}/v([1-9][0-9]*)\.json\Z")


#: Names of objects that preparations write, of any version.
_OBJECT = re.compile(
    rf"{MANIFESTS}/v[1-9][0-9]*\.json"
    r"|inputs/[0-9a-f]{16}\.json"
    r"|(catalog|quarantine|ignored)/(v[1-9][0-9]*-[0-9a-f]{8}/)?part-[0-9]{5,}\.parquet"
    r"|images/[^/]+-[0-9]{6,}\.tar"
    r"|superpatches/[^/]+\.zarr/(zarr\.json|c/[0-9]+/0/0/0)"
)


def version_path(version: int) -> str:
    """Path of the manifest of a version inside the dataset, where there are several."""
    return f"{MANIFESTS}/v{version}.json"


def find_versions(paths: Iterable[str]) -> list[int]:
    """Find the numbers of the versions among the paths of a dataset, in order."""
    return sorted(int(found[1]) for path in paths if (found := _VERSION.match(path)))


def version_mark(version: int, plan_digest: str) -> str:
    """What distinguishes the names of the objects that a version adds; of version 1 nothing.

    The digest keeps preparations apart that write the same version at one time: one of them is published, and the objects of the
    others are not in its way.

    Args:
        version: that adds the objects.
        plan_digest: of the plan by which they are written.

    Returns:
        Such as ``v2-0a1b2c3d``.
    """
    return "" if version == 1 else f"v{version}-{plan_digest[:8]}"


def table_part_path(role: str, number: int, mark: str) -> str:
    """Path of one part of a table inside a dataset.

    Args:
        role: of the table, which is also its folder.
        number: of the part.
        mark: of the version, as :func:`version_mark` gives it.

    Returns:
        ``catalog/part-00000.parquet``, and of later versions ``catalog/v2-0a1b2c3d/part-00000.parquet``.
    """
    folder = f"{role}/{mark}" if mark else role
    return f"{folder}/part-{number:05d}.parquet"


def inputs_path(plan_digest: str) -> str:
    """Path of the writer's record of what a version was made from, which no manifest names."""
    return f"inputs/{plan_digest[:16]}.json"


def is_dataset_object(path: str) -> bool:
    """Whether a path inside a dataset is that of an object which a preparation writes; ``manifest.json`` is not asked for."""
    return _OBJECT.fullmatch(path) is not None
