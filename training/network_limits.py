"""Limits of networks: one that is larger than it may be is refused while it is built on the meta device, and not by memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import register_module_module_registration_hook, register_module_parameter_registration_hook

#: Modules and parameters that are registered for each tensor of a finished network, at most: some are replaced or hold none.
REGISTERED = 20
SPARE = 1000


@contextmanager
def limit_parts(num_tensors: int) -> Iterator[None]:
    """Limit the network that is built in the ``with`` block: one of far more tensors is refused before it is complete.

    Args:
        num_tensors: parameters and buffers of the network.

    Raises:
        ValueError: once far more parameters or modules were registered.
    """
    limit, found = REGISTERED * num_tensors + SPARE, 0

    def count(*registered: Any) -> None:
        nonlocal found
        found += 1
        if found > limit:
            raise ValueError(f"more than {limit} parts would make up a network of {num_tensors} tensors")

    hooks = [register_module_parameter_registration_hook(count), register_module_module_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
