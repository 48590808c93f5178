"""Pictures in the folder of a run: those of its evaluation, and those that it draws while it goes on. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import PNG_URI, Gallery, Picture
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.training.run_dir.layout import STEP_PICTURES, picture_board_path, pictures_step_of, step_pictures_path


def write_galleries(run: Bucket, path: str, galleries: Sequence[Gallery]) -> int:
    """Write pictures, for pages that are built later.

    Args:
        run: folder of the run.
        path: of the object.
        galleries: what is shown.

    Returns:
        Size of the object in bytes.
    """
    document = []
    for gallery in galleries:
        rows = [[name, [[picture.caption, picture.uri] for picture in pictures]] for name, pictures in gallery.rows]
        document.append({"title": gallery.title, "rows": rows})
    data = canonical_json({"galleries": document})
    run.put(path, data)
    return len(data)


def parse_galleries(document: dict[str, Any]) -> list[Gallery]:
    """Parse what :func:`write_galleries` wrote.

    Args:
        document: as JSON values.

    Returns:
        The galleries; none if one of them is damaged.
    """
    try:
        return [
            Gallery(
                title=str(one["title"]),
                rows=[(str(name), [_parse_picture(*pair) for pair in pictures]) for name, pictures in one["rows"]],
            )
            for one in document.get("galleries", [])
        ]
    except (ValueError, LookupError, TypeError):
        return []


def _parse_picture(caption: object, uri: object) -> Picture:
    if not isinstance(uri, str) or not uri.startswith(PNG_URI):
        raise ValueError("a picture of a page lies inside it")
    return Picture(caption=str(caption), uri=uri)


def list_picture_steps(run: Bucket) -> list[int]:
    """Steps after which the run drew pictures, in order."""
    stored = run.list_objects(STEP_PICTURES) if run.exists(STEP_PICTURES) else []
    return sorted(step for one in stored if (step := pictures_step_of(one.path)) is not None)


def remove_pictures_after(run: Bucket, step: int) -> None:
    """Remove pictures of steps that are done again.

    Args:
        run: folder of the run.
        step: that the run goes on from.
    """
    for later in list_picture_steps(run):
        if later > step:
            run.delete_exactly([step_pictures_path(later), picture_board_path(later)])


def read_step_pictures(run: Bucket, step: int) -> list[Gallery]:
    """Read the pictures that a run drew after a step.

    Args:
        run: its folder.
        step: number of steps done.

    Returns:
        The galleries; none if they are damaged, or were removed meanwhile.

    Raises:
        UnreachableError: if the store does not answer.
    """
    try:
        document = json.loads(run.read(step_pictures_path(step)))
    except UnreachableError:
        raise
    except (StorageError, ValueError, RecursionError):
        return []
    return parse_galleries(document) if isinstance(document, dict) else []
