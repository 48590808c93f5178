"""Chooses precision and compilation where a run leaves them to its devices, with ``auto``.

The choice is made when a run is first started, and recorded like any other setting: a resume keeps it on every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from crossdim.training.config.execution import AUTO, Execution

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What decides on precision and compilation.

    Attributes:
        name: for people.
        bf16: whether it computes in bfloat16, with gradients that are right.
        compiles: whether ``torch.compile`` is worth its time there, and finds the compilers that it needs.
    """

    name: str
    bf16: bool
    compiles: bool


#: Gradients in bfloat16 are NaN now and then, and compiling takes longer than the steps of a small run.
CPU = Device(name="the CPU", bf16=False, compiles=False)


def choose_execution(execution: Execution, devices: Sequence[Device]) -> Execution:
    """Choose what ``auto`` stands for: what every device can do.

    Args:
        execution: settings of the step; those that are not ``auto`` stay.
        devices: one of each kind that the run may use; none if they are not known, which gives what works on all.

    Returns:
        Settings without ``auto``. Sharded or recomputing networks are not compiled: nobody has tried both together.
    """
    precision, compiled = execution.precision, execution.compiled
    if precision == AUTO:
        precision = "bf16" if devices and all(device.bf16 for device in devices) else "fp32"
    if compiled == AUTO:
        compiles = bool(devices) and all(device.compiles for device in devices)
        compiled = compiles and not (execution.sharded or execution.recompute)
    return replace(execution, precision=precision, compiled=compiled)


def keep_recorded(asked: Settings, recorded: Mapping[str, Any]) -> Settings:
    """Take for ``auto`` what the run was started with.

    Args:
        asked: settings, a dataclass, as they are asked for now.
        recorded: those in the run's own configuration; members that it lacks stay ``auto``.

    Returns:
        The settings.
    """
    left = [field.name for field in fields(asked) if getattr(asked, field.name) == AUTO]  # type: ignore[arg-type]
    kept = {name: recorded[name] for name in left if name in recorded}
    return replace(asked, **kept)  # type: ignore[type-var]


def describe_choice(asked: Execution, chosen: Execution, devices: Sequence[Device]) -> str:
    """Describe the choice of a run that is started.

    Args:
        asked: settings of the step before the choice.
        chosen: and after it.
        devices: for which it was made.

    Returns:
        What was chosen, for what, and how to change it; empty if there was nothing to choose.
    """
    if asked == chosen:
        return ""
    where = _join_names(devices) or "GPUs that could not be asked, so for all that there are"
    change = "with --gpu a GPU chooses" if devices == (CPU,) else f"to change it: {_suggest(chosen)}"
    return f"{_describe(chosen)}: chosen for {where}; {change}"


def describe_kept(kept: Execution, devices: Sequence[Device]) -> str:
    """Describe what a resume keeps although its devices would choose otherwise.

    Args:
        kept: settings with which the run was started.
        devices: of this start; none if they were not asked.

    Returns:
        A phrase; empty if a new run would do the same.
    """
    here = choose_execution(replace(kept, precision=AUTO, compiled=AUTO), devices)
    if not devices or here == kept:
        return ""
    return f"{_describe(kept)}: as the run was started; {_join_names(devices)} would choose {_describe(here)} for a new one"


def _describe(execution: Execution) -> str:
    return f"precision {execution.precision}, {'compiled' if execution.compiled else 'not compiled'}"


def _suggest(chosen: Execution) -> str:
    precision = "fp32" if chosen.precision == "bf16" else "bf16"
    return f"--set compute.precision={precision}, --set compute.compiled={'false' if chosen.compiled else 'true'}"


def _join_names(devices: Sequence[Device]) -> str:
    return ", ".join(dict.fromkeys(device.name for device in devices))
