"""Pictures that a run drew at several steps, put together so that the same sample at each step stands in one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossdim.foundation.page.pictures import Gallery

#: Titles of the kinds of pictures, in the order in which they are shown.
KINDS = {"restored": "restorations", "views": "views"}


def join_steps(pictures: Mapping[int, Sequence[Gallery]], steps: int) -> list[Gallery]:
    """Join the galleries of several steps.

    Args:
        pictures: of each sample, by the number of steps done.
        steps: of the whole run.

    Returns:
        A gallery for each sample and kind of picture, with a row for each step.
    """
    samples = dict.fromkeys(gallery.title for galleries in pictures.values() for gallery in galleries)
    joined = []
    for title in samples:
        for kind, name in KINDS.items():
            rows = [
                (f"step {step:,} of {steps:,} ({step / steps:.0%})", shown)
                for step, galleries in sorted(pictures.items())
                for gallery in galleries
                for what, shown in gallery.rows
                if gallery.title == title and what == kind
            ]
            joined += [Gallery(title=f"{title}: {name}", rows=rows)] if rows else []
    return joined
