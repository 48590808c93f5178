"""The control object of this process: signals come to a process, and Ray sends functions to one."""

from __future__ import annotations

from crossdim.training.engine.control import StopControl

#: Of this process. The driver, workers and trainings without Ray pass it on; nothing else refers to it.
PROCESS_CONTROL = StopControl()


def save_in_this_process(timeout_s: float) -> int | None:
    """:meth:`StopControl.save` in the process in which it is called: a function, because Ray sends it to a worker."""
    return PROCESS_CONTROL.save(timeout_s)
