"""Plans as named arrays of a sample, and back from the tensors of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor

from crossdim.storage_schema.sample import Array

Plan = TypeVar("Plan")


def pack(plan: Any, prefix: str) -> dict[str, Array]:
    """The fields of a plan as arrays, named ``prefix.field``.

    Args:
        plan: a dataclass of arrays.
        prefix: of the names.

    Returns:
        Arrays by name, of the shapes of the plan's fields.
    """
    return {f"{prefix}.{f.name}": getattr(plan, f.name) for f in fields(plan)}


def unpack(kind: type[Plan], tensors: Mapping[str, Tensor], prefix: str) -> Plan:
    """The inverse of :func:`pack`, for a batch.

    Args:
        kind: class of the plan.
        tensors: of a batch, by name.
        prefix: of the names.

    Returns:
        A plan whose fields are tensors with the batch axis in front.
    """
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: tensors[f"{prefix}.{name}"] for name in names})
