"""Which inputs are measured: those of every kind, of all sizes, so that the first of them stand for all."""

from __future__ import annotations

from collections.abc import Sequence

from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.jobs.recipe import ImageRecipe, Recipe, VolumeRecipe

#: What an image costs besides its pixels, in pixels: reading, records, checks. Ours, measured on small files.
IMAGE_OVERHEAD = 50_000


def order_for_sampling(items: Sequence[Item]) -> tuple[list[Item], int]:
    """Order inputs so that any first part of the order is spread over kinds and sizes.

    Args:
        items: of the plan.

    Returns:
        All of them, the smallest of each kind first; and the number of kinds.
    """
    kinds: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.num_values, item.uri)):
        kinds.setdefault(item.decoder, []).append(item)
    placed = [
        (place / len(members), kind, item) for kind, members in kinds.items() for place, item in enumerate(_spread(members))
    ]
    return [item for _, _, item in sorted(placed, key=lambda one: one[:2])], len(kinds)


def _spread(items: Sequence[Item]) -> list[Item]:
    """Sorted inputs in the order of their ranks' reversed bits: the first, the middle, the quarters, ..."""
    width = max(1, (len(items) - 1).bit_length())
    return [items[rank] for rank in (int(f"{n:0{width}b}"[::-1], 2) for n in range(1 << width)) if rank < len(items)]


def weigh(item: Item, recipe: Recipe) -> int:
    """Weigh an input by the values that are read and made of it: time is taken to grow with them.

    Args:
        item: of the plan.
        recipe: of the preparation.

    Returns:
        A number of values.
    """
    if isinstance(recipe, VolumeRecipe):
        return item.num_values + item.boxes * recipe.superpatch.side**3
    return item.num_values + IMAGE_OVERHEAD


def measure_size(item: Item, recipe: Recipe) -> int:
    """Measure what the published bytes of an input are taken to grow with: pixels of images, boxes of volumes.

    Args:
        item: of the plan.
        recipe: of the preparation.

    Returns:
        Their number.
    """
    return item.num_values if isinstance(recipe, ImageRecipe) else item.boxes
