"""Settings inside requests. They are the same for every file of a run, so their text is written and parsed once."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeVar

from crossdim.foundation.settings import from_document, to_document

Settings = TypeVar("Settings")


@lru_cache(maxsize=64)
def serialise_settings(settings: Any) -> str:
    """A frozen dataclass of settings as JSON."""
    return json.dumps(to_document(settings))


@lru_cache(maxsize=64)
def parse_settings(kind: type[Settings], text: str) -> Settings:
    """Parse what :func:`serialise_settings` wrote.

    Args:
        kind: dataclass of the settings.
        text: JSON.

    Returns:
        An instance of ``kind``; equal texts give the same instance.
    """
    return from_document(kind, json.loads(text), subject=kind.__name__)
