"""Settings inside of requests: the same for every file of a run, so their text is made and read once."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeVar

from crossdim.foundation.settings import from_document, to_document

Settings = TypeVar("Settings")


@lru_cache(maxsize=64)
def settings_text(settings: Any) -> str:
    """A frozen dataclass of settings as JSON."""
    return json.dumps(to_document(settings))


@lru_cache(maxsize=64)
def settings_of(kind: type[Settings], text: str) -> Settings:
    """What :func:`settings_text` wrote, as a ``kind``."""
    return from_document(kind, json.loads(text), subject=kind.__name__)
