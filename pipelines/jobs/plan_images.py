"""Images packed into tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from crossdim.pipelines.jobs.items import Item, Naming, Task, check_annotation
from crossdim.pipelines.jobs.recipe import ImageRecipe
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.quarantine import Quarantined, apply_steps
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.registry import readers_of


def build_image_items(
    usable: Sequence[ScanResult], recipe: ImageRecipe, naming: Naming
) -> tuple[list[tuple[Item, int]], list[Quarantined]]:
    """Build the items of all images; those whose labels do not agree are refused.

    Args:
        usable: files that the recipe reads, sorted.
        recipe: the recipe.
        naming: labels, patients and modalities.

    Returns:
        Each item with about how many bytes its sample has, and the refused images.
    """
    items: list[tuple[Item, int]] = []
    refused: list[Quarantined] = []
    for result in usable:
        assert result.header is not None
        make = partial(_build_image_item, info=result.header, recipe=recipe, naming=naming)
        planned = apply_steps(result.uri, [result], [("plan", partial(check_annotation, rules=recipe.read)), ("plan", make)])
        if isinstance(planned, Quarantined):
            refused.append(planned)
        else:
            items.append(planned)
    return items, refused


def pack_images(items: Sequence[tuple[Item, int]], recipe: ImageRecipe) -> list[Task]:
    """Pack images in order into tasks, until a shard is full.

    Args:
        items: each with about how many bytes its sample has.
        recipe: with the size of a shard.

    Returns:
        One task per shard.
    """
    packs: list[list[Item]] = []
    num_bytes = 0
    for item, size in items:
        if not packs or len(packs[-1]) >= recipe.shard.max_samples or num_bytes + size > recipe.shard.target_bytes:
            packs.append([])
            num_bytes = 0
        packs[-1].append(item)
        num_bytes += size
    return [Task(number=number, items=tuple(pack), first_shard=number) for number, pack in enumerate(packs)]


def _build_image_item(files: Sequence[ScanResult], info: HeaderInfo, recipe: ImageRecipe, naming: Naming) -> tuple[Item, int]:
    """The item of an image file, and about how many bytes its sample has."""
    reader = next(one for one in readers_of("image") if one.format_name == info.format)
    return naming.build_item(files[0].uri, files, reader.name), recipe.estimate_bytes(info)
