"""Notes that the user should look at, counted for the outcome of a preparation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.series_groups import CONTINUED, LACKS_SLICES
from crossdim.pipelines.readers.modality_lut import NO_RESCALE, NOT_HOUNSFIELD
from crossdim.pipelines.readers.volume_values import OFFSET_NOTE
from crossdim.storage_schema.vocabulary import Modality

#: Values that may not be what the recipe takes them for. Other notes tell of decisions that follow a rule.
FLAGGED = (NO_RESCALE, NOT_HOUNSFIELD, OFFSET_NOTE, LACKS_SLICES, CONTINUED)


def tell_flagged(catalog: Iterable[Mapping[str, object]], modality: Modality | None) -> list[str]:
    """A sentence for each flagged note, with the number of inputs that have it.

    Args:
        catalog: rows of the catalog; several may be of one input.
        modality: that was given for inputs whose header states none.

    Returns:
        The sentences.
    """
    rows = list(catalog)
    unknown = {str(row["source_uri"]) for row in rows if row["modality"] == Modality.OT}
    notes = {str(row["source_uri"]): str(row["note"]) for row in rows if row["note"]}
    numbers = {flagged: sum(flagged in note.split("; ") for note in notes.values()) for flagged in FLAGGED}
    why = "OT by the header, which counts before --modality" if modality else "not known (OT); --modality names it"
    told = [f"modality of {count(len(unknown), 'input')} is {why}"] if unknown else []
    return told + [
        f"look at {count(number, 'input')}: {flagged} (their note in the catalog)"
        for flagged, number in numbers.items()
        if number
    ]
