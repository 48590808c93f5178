"""DriverMailbox: what the driver and Ray's controller, which are different processes, leave for one another."""

from __future__ import annotations

from crossdim.training.engine.control import Request


class DriverMailbox:
    """An actor on the driver's machine: requests from the driver to the controller, and why the controller ended the run."""

    def __init__(self) -> None:
        self._request, self._has_workers, self._failure = Request.NOTHING, False, ""

    def put_request(self, what: Request) -> bool:
        """Leave a request; returns whether there are workers to follow it."""
        self._request = max(self._request, what)
        return self._has_workers

    def take_request(self) -> Request:
        """Remove all requests and return the greatest of them."""
        taken, self._request = self._request, Request.NOTHING
        return taken

    def set_has_workers(self, *, has_workers: bool) -> None:
        """Record whether there are workers now."""
        self._has_workers = has_workers

    def put_failure(self, reason: str) -> None:
        """Leave the reason why the run is not tried again."""
        self._failure = reason

    def get_failure(self) -> str:
        """The reason why the run is not tried again; empty if there is none."""
        return self._failure
