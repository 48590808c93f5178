"""Plan: which inputs become which output object, decided before anything is decoded.

A plan is a list of tasks; only its own task writes an object. A plan depends on the inputs and the recipe only, so all runs with
the same digest write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.settings import to_document
from crossdim.pipelines.jobs.items import Item, Naming, Task
from crossdim.pipelines.jobs.plan_images import build_image_items, pack_images
from crossdim.pipelines.jobs.plan_volumes import build_volume_items, pack_volumes
from crossdim.pipelines.jobs.recipe import ImageRecipe, Recipe
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.series_groups import (
    find_unreadable,
)
from crossdim.pipelines.quarantine import Ignored, Quarantined
from crossdim.pipelines.readers.registry import families_of, promised_family
from crossdim.storage_schema.digest import digest

#: Of the plan and of the code's reading of it: a new number makes old scratch markers strangers.
PLAN_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All tasks, the inputs refused by their headers, and the files that are no inputs.

    Attributes:
        reused: inputs whose samples an earlier version of the dataset holds.
    """

    tasks: tuple[Task, ...]
    refused: tuple[Quarantined, ...]
    ignored: tuple[Ignored, ...] = ()
    reused: tuple[Item, ...] = ()
    digest: str

    @property
    def items(self) -> list[Item]:
        """All inputs, first those that are reused."""
        return [*self.reused, *(item for task in self.tasks for item in task.items)]

    @property
    def num_items(self) -> int:
        """Number of inputs."""
        return len(self.items)

    @property
    def num_shards(self) -> int:
        """Number of bank shards that the tasks reserve."""
        return self.tasks[-1].first_shard + self.tasks[-1].num_shards if self.tasks else 0


#: Chooses the inputs that need not be decoded, because an earlier version of the dataset holds what becomes of them.
Choose = Callable[[Sequence[Item]], Collection[str]]


def make_plan(
    results: Sequence[ScanResult],
    recipe: Recipe,
    naming: Naming,
    identity: dict[str, object],
    *,
    choose: Choose = lambda _: (),
    first_shard: int = 0,
) -> Plan:
    """Decide what happens to every file.

    Args:
        results: of the scan, sorted.
        recipe: the recipe.
        naming: labels, patients and modalities.
        identity: what else decides the bytes (the dataset's name, the test fraction).
        choose: names the items that are in no task.
        first_shard: number of the first shard of a bank.

    Returns:
        Tasks, refused inputs and ignored files, with a digest of them all.
    """
    usable, refused, ignored = sort_results(results, recipe)
    if isinstance(recipe, ImageRecipe):
        sized, more = build_image_items(usable, recipe, naming)
        items = [item for item, _ in sized]
        reused = set(choose(items))
        tasks = pack_images([one for one in sized if one[0].uri not in reused], recipe)
    else:
        items, more = build_volume_items(usable, recipe, naming, find_unreadable(results))
        reused = set(choose(items))
        tasks = pack_volumes([item for item in items if item.uri not in reused], recipe, first_shard)
    refused += more
    refused.sort(key=lambda one: one.uri)
    document = {
        "version": PLAN_VERSION,
        "recipe": to_document(recipe),
        "identity": identity,
        "rows": [_build_identity(task) for task in tasks],
        "refused": [one.row() for one in refused],
        "ignored": [one.row() for one in ignored],
    }
    return Plan(
        tasks=tuple(tasks),
        refused=tuple(refused),
        ignored=tuple(ignored),
        reused=tuple(item for item in items if item.uri in reused),
        digest=digest(document),
    )


def sort_results(results: Sequence[ScanResult], recipe: Recipe) -> tuple[list[ScanResult], list[Quarantined], list[Ignored]]:
    """Divide the scan results by what the recipe can do with them.

    Args:
        results: of the scan.
        recipe: the recipe.

    Returns:
        Files that the recipe reads, files of its kind that are damaged, and all others.
    """
    families = families_of(recipe.reads)
    usable: list[ScanResult] = []
    refused: list[Quarantined] = []
    ignored: list[Ignored] = []
    for result in results:
        if result.status == "ok" and result.header and result.header.format in recipe.formats:
            usable.append(result)
        elif result.status == "refused" and promised_family(result.path) in {*families, None}:
            refused.append(result.to_quarantined())
        elif result.status == "ignored":
            ignored.append(result.to_ignored())
        else:
            broken = f"; besides, {result.reason} [{result.rule}]" if result.reason else ""
            reason = f"the recipe reads {', '.join(sorted(recipe.formats))}{broken}"
            ignored.append(Ignored(uri=result.uri, format=result.format, rule="not_for_recipe", reason=reason))
    return usable, refused, ignored


def _build_identity(task: Task) -> dict[str, Any]:
    """A task as the digest covers it.

    Without paths beside hashed names, which a digest over them would let anybody guess, and without versions, which differ in
    a copy of the sources.
    """
    document: dict[str, Any] = to_document(task)
    for item in document["items"]:
        for name in ("note", "split"):
            if item[name] is None:
                del item[name]  # plans without it keep the digests that they had before it existed
        for file in item["files"]:
            del file["path"], file["version"]
    return document
