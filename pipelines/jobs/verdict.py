"""What the scan says of one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.decoders.facts import Facts
from pipelines.quarantine import Quarantined

Status = Literal["ok", "ignored", "refused"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One file: usable and by which facts, not for us, or refused and why."""

    source: int
    path: str
    uri: str
    size: int
    status: Status
    rule: str = ""
    reason: str = ""
    facts: Facts | None = None

    def quarantined(self) -> Quarantined:
        """The quarantine row of a refused file."""
        return Quarantined(uri=self.uri, stage="scan", rule=self.rule, reason=self.reason)
