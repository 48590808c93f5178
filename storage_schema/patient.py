"""The patient of a sample, as the catalog states it: a hash, or what stands for a patient who is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CONTENT_DIGITS = 16


def patient_or_content(patient: str | None, sha256: str) -> str:
    """What the catalog states as patient.

    Args:
        patient: hashed; None or empty if not known.
        sha256: of the source's content.

    Returns:
        The patient, or the first 16 digits of the hash: a source without a known patient counts as a patient of its own.
    """
    return patient or sha256[:_CONTENT_DIGITS]


def known_patient(row: Mapping[str, Any]) -> str | None:
    """The patient of a catalog row, hashed; None if none is known."""
    patient, sha256 = str(row["patient"]), str(row["source_sha256"])
    return None if patient == patient_or_content(None, sha256) else patient
