"""Travel: plans as named arrays of a sample, and a batch of them as the same plans again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor

from crossdim.storage_schema.sample import Array

Plan = TypeVar("Plan")


def packed(plan: Any, prefix: str) -> dict[str, Array]:
    """The fields of a plan, named ``prefix.field``."""
    return {f"{prefix}.{f.name}": getattr(plan, f.name) for f in fields(plan)}


def unpacked(kind: type[Plan], tensors: Mapping[str, Tensor], prefix: str) -> Plan:
    """A plan whose fields are tensors, with the batch axis in front; the other way round from :func:`packed`."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: tensors[f"{prefix}.{name}"] for name in names})
