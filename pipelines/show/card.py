"""The card of a dataset in Markdown: what is recorded, and what a person has to fill in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossdim.foundation.git_state import format_git_states
from crossdim.foundation.page.render import render_markdown
from crossdim.pipelines.show.summary import Tables, summarise
from crossdim.pipelines.show.text import describe_patients

#: Where ``prepare`` writes the card, and what was recorded of the command; the manifest names neither.
CARD, PROVENANCE = "card.md", "provenance.json"
TEMPLATE = Path(__file__).with_name("card.md")
MAX_LABELS = 100


def build_card(tables: Tables, provenance: dict[str, Any] | None) -> bytes:
    """Build the card of a dataset.

    Args:
        tables: of the dataset.
        provenance: as recorded by :func:`crossdim.foundation.provenance.record_provenance`; None if nobody did.

    Returns:
        Markdown in UTF-8.
    """
    summary = summarise(tables)
    return render_markdown(
        TEMPLATE,
        s=summary,
        digest=tables.manifest.digest,
        patients=describe_patients(summary),
        labels=list(summary.labels.items())[:MAX_LABELS],
        provenance=provenance,
        code=format_git_states((provenance or {}).get("git", {})),
        preprocessing=json.dumps(tables.manifest.preprocessing, indent=2, sort_keys=True),
    )
