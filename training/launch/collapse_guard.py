"""Says once that the features of a run collapse, and asks it to stop if it is to end then."""

from __future__ import annotations

import logging
from collections.abc import Callable

from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.monitor import FeatureMonitor
from crossdim.training.engine.step_record import StepRecord

_LOG = logging.getLogger(__name__)


class CollapseGuard:
    """The hook that follows the monitor's findings, on every rank.

    Args:
        monitor: measures features.
        control: of this training; a stop is requested there, so that a checkpoint is written as for any other stop.
        stops: whether the run ends when features collapse.
        report: writes an event of a step; of rank 0 only, which alone says it.
    """

    def __init__(
        self, monitor: FeatureMonitor, control: StopControl, *, stops: bool, report: Callable[[int, str], None] | None
    ) -> None:
        self._monitor, self._control, self._stops, self._report = monitor, control, stops, report
        self._said = False
        #: The collapse for which the run was asked to stop; empty if it was not.
        self.stopped_for = ""

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Warn if the newest measurement found a collapse, once until features have recovered.

        Args:
            record: of the step.
            request: not used.
        """
        collapse = self._monitor.collapse
        if collapse and not self._said and self._report:
            _LOG.warning("step %d: %s", record.step + 1, collapse)
            self._report(record.step + 1, collapse)
        self._said = bool(collapse)
        if collapse and self._stops and not self.stopped_for:
            self.stopped_for = f"step {record.step + 1}: {collapse}"
            self._control.request(Request.STOP)
