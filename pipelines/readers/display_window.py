"""The window that a DICOM file is meant to be shown with (PS3.3 C.11.2): noted and not applied, because it discards values."""

from __future__ import annotations

from typing import Any

import numpy as np


def display_window_note(dataset: Any) -> str | None:
    """Note the first window that a header states, in physical values, or a VOI LUT."""
    if dataset.get("VOILUTSequence"):
        return "display table (VOI LUT) stated, not applied"
    try:
        centre, width = (float(np.atleast_1d(dataset.get(name))[0]) for name in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return None
    if not (np.isfinite(centre) and np.isfinite(width)):
        return None
    kind = "sigmoid" if str(dataset.get("VOILUTFunction") or "").strip().upper() == "SIGMOID" else "window"
    return f"display {kind} of centre {centre:g} and width {width:g} stated, not applied"
