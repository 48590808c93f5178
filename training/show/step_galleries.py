"""Pictures that a run drew at several steps, put together so that the same sample at each step stands in one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossdim.foundation.page.pictures import Gallery


def join_steps(pictures: Mapping[int, Sequence[Gallery]], steps: int, kind: str) -> list[Gallery]:
    """Join one kind of pictures of several steps.

    Args:
        pictures: of each sample, by the number of steps done.
        steps: of the whole run.
        kind: name of the rows of a sample that are taken, ``views`` or ``restored``.

    Returns:
        A gallery for each sample that has such pictures, with a row for each step.
    """
    joined: dict[str, Gallery] = {}
    for step, galleries in sorted(pictures.items()):
        for gallery in galleries:
            sample = joined.setdefault(gallery.title, Gallery(title=gallery.title, rows=[]))
            name = f"step {step:,} of {steps:,} ({step / steps:.0%})"
            sample.rows.extend((name, shown) for what, shown in gallery.rows if what == kind)
    return [gallery for gallery in joined.values() if gallery.rows]
