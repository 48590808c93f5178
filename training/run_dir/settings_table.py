"""Settings of a run as one table of plain values, which trackers take for their tables of hyperparameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Value = str | int | float | bool


def list_values(config: Mapping[str, Any]) -> dict[str, Value]:
    """List every setting of a configuration.

    Args:
        config: its document.

    Returns:
        By path, such as ``optimizer.lr``: numbers, truth values and texts as they are, all else as JSON.
    """
    return dict(_walk(config, ""))


def _walk(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Value]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value if isinstance(value, Value) else json.dumps(value)
