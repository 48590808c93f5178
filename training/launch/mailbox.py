"""DriverMailbox: what the driver and Ray's controller, which are different processes, leave for one another."""

from __future__ import annotations

from enum import Enum

from crossdim.training.engine.control import Request


class Phase(Enum):
    """What the controller is doing."""

    STARTING = "starting"
    TRAINING = "training"
    ENDING = "ending"


class DriverMailbox:
    """An actor on the driver's machine: requests from the driver to the controller, and why the controller ended the run."""

    def __init__(self) -> None:
        self._request, self._phase, self._failure = Request.NOTHING, Phase.STARTING, ""

    def put_request(self, what: Request) -> Phase:
        """Leave a request; returns what the controller is doing: only while it trains there are workers to follow it."""
        self._request = max(self._request, what)
        return self._phase

    def take_request(self) -> Request:
        """Remove all requests and return the greatest of them."""
        taken, self._request = self._request, Request.NOTHING
        return taken

    def set_phase(self, phase: Phase) -> None:
        """Record what the controller is doing; a run that ends does nothing else any more."""
        if self._phase is not Phase.ENDING:
            self._phase = phase

    def put_failure(self, reason: str) -> None:
        """Leave the reason why the run is not tried again."""
        self._failure = reason

    def get_failure(self) -> str:
        """The reason why the run is not tried again; empty if there is none."""
        return self._failure
