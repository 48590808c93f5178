"""Checks of a Ray cluster that is joined: whether it lets this process in, and versions and shared memory of each machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.cluster import ray_session
from crossdim.foundation.extras import require
from crossdim.foundation.rates import format_size
from crossdim.foundation.ray_auth import AUTH_MODE
from crossdim.foundation.ray_needs import SHARED_MEMORY

#: A worker that is started for a task of a cluster at work may take so long.
PATIENCE_S = 60.0
#: Packages whose version must be the same on every machine, and that of Python.
SAME = ("Python", "Ray", "crossdim")


def check_ray(address: str) -> list[CheckResult]:
    """Join a cluster and ask each of its machines what it has. Call it from the main thread, for signals.

    Args:
        address: HOST:PORT, or ``auto``.

    Returns:
        A result for the cluster and one for each machine.

    Raises:
        CrossdimError: if it cannot be joined.
    """
    require("ray", "--ray-address")
    with ray_session(address):
        import ray

        nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        token = "it takes a token, which was found here" if os.environ.get(AUTH_MODE) == "token" else "it takes no token"
        head = ray.get_runtime_context().gcs_address
        joined = CheckResult(check="Ray cluster", found=f"{head} was joined, {len(nodes)} machines; {token}")
        return [joined, *_check_nodes(nodes)]


def _check_nodes(nodes: list[dict[str, Any]]) -> list[CheckResult]:
    """One task for each machine, all at once."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_build_task())
    asked = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(task.options(scheduling_strategy=there).remote(str(SHARED_MEMORY)))
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE_S)
    here = _describe_here()
    return [_check_node(node, one if one in ready else None, here) for node, one in zip(nodes, asked, strict=True)]


def _build_task() -> Callable[[str], dict[str, Any]]:
    """The task. Ray sends a function that is made in another one as a whole, so it runs where crossdim is missing or another."""

    def describe(memory: str) -> dict[str, Any]:
        """Describe the machine that this runs on: versions, and free shared memory at a path."""
        import platform
        import shutil
        from importlib import metadata

        import ray

        try:
            version = metadata.version("crossdim")
        except metadata.PackageNotFoundError:
            version = None
        try:
            total = shutil.disk_usage(memory).total
        except OSError:
            total = 0
        return {"Python": platform.python_version(), "Ray": ray.__version__, "crossdim": version, "memory": total}

    return describe


def _describe_here() -> dict[str, str | None]:
    """What a machine should have."""
    import ray

    try:
        version = metadata.version("crossdim")
    except metadata.PackageNotFoundError:
        version = None
    return {"Python": platform.python_version(), "Ray": ray.__version__, "crossdim": version}


def _check_node(node: dict[str, Any], answer: Any, here: dict[str, str | None]) -> CheckResult:
    import ray
    from ray.exceptions import RayError

    name = f"Ray machine {node['NodeManagerAddress']} ({node['NodeID'][:6]})"
    log = "look at the log of its raylet: ray logs raylet.out --node-id " + node["NodeID"]
    if answer is None:
        return CheckResult(check=name, level=Level.FAILURE, found=f"runs no task within {PATIENCE_S:.0f} s", remedy=log)
    try:
        found: dict[str, Any] = ray.get(answer)
    except RayError as error:
        said = " ".join(str(error).split())[:300]
        return CheckResult(check=name, level=Level.FAILURE, found=f"fails to run a task: {said}", remedy=log)
    return compare_node(name, found, here, node["Resources"].get("object_store_memory", 0))


def compare_node(name: str, found: dict[str, Any], here: dict[str, str | None], object_store_bytes: float) -> CheckResult:
    """Compare a machine with this one.

    Args:
        name: of the check.
        found: versions on it, and ``memory``, the bytes of its shared memory.
        here: versions on this machine.
        object_store_bytes: of its object store.

    Returns:
        A failure for other versions, a warning if the object store does not fit into the shared memory.
    """
    others = [f"{one} {found[one] or 'is not installed'}, here {here[one] or 'none'}" for one in SAME if found[one] != here[one]]
    if others:
        same = f"pip install 'ray=={here['Ray']}' 'crossdim=={here['crossdim']}'"
        remedy = f"on that machine, with Python {here['Python']}: {same}"
        return CheckResult(check=name, level=Level.FAILURE, found="; ".join(others), remedy=remedy)
    memory = f"{format_size(found['memory'])} in {SHARED_MEMORY}"
    if found["memory"] < object_store_bytes:
        slow = f"{memory}; its object store takes {format_size(int(object_store_bytes))} and lies in a slower folder"
        remedy = (
            "in a container, docker run --shm-size=2g (in Kubernetes an emptyDir of medium Memory); else, on that machine: "
            f"sudo mount -o remount,size=2G {SHARED_MEMORY}"
        )
        return CheckResult(check=name, level=Level.WARNING, found=slow, remedy=remedy)
    versions = ", ".join(f"{one} {found[one]}" for one in SAME)
    return CheckResult(check=name, found=f"{versions}, as here; {memory}")
