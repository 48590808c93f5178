"""The record of a plan beside the markers of its tasks: how many there are, for those who ask how a preparation is doing."""

from __future__ import annotations

from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.scratch import PLAN, parse_checked, to_checked_bytes
from crossdim.storage_schema.errors import DocumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRecord:
    """What is known of a preparation once its sources are scanned: only numbers, and no name.

    Attributes:
        plan: digest of the plan.
        tasks: of the plan.
        files: in the sources.
        refused: inputs that were quarantined by their headers.
        ignored: files that are no inputs.
        version: of the dataset that is made.
    """

    plan: str
    tasks: int
    files: int
    refused: int
    ignored: int
    version: int = 1


def write_plan_record(out: Bucket, record: PlanRecord) -> None:
    """Write the record of a plan; it is removed with the other temporary data.

    Args:
        out: the dataset.
        record: of the plan.
    """
    out.put(PLAN, to_checked_bytes(to_document(record)), private=True)


def read_plan_record(out: Bucket) -> PlanRecord | None:
    """Read the record of a plan; None if there is none that can be trusted."""
    if not out.exists(PLAN):
        return None
    try:
        return from_document(PlanRecord, parse_checked(out.read(PLAN)), subject="record of a plan")
    except (ValueError, DocumentError):
        return None
