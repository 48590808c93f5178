"""A hook that keeps the records of a training."""

from __future__ import annotations

from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord


class Records:
    """What ``fit`` told after each step."""

    def __init__(self) -> None:
        self.found: list[StepRecord] = []
        self.requests: list[Request] = []

    def after_step(self, record: StepRecord, request: Request) -> None:
        self.found.append(record)
        self.requests.append(request)
