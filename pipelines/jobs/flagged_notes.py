"""Notes that the user should look at, counted for the outcome of a preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.jobs.scan_result import ScanResult
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


def tell_folder_modalities(items: Sequence[Item], results: Sequence[ScanResult]) -> list[str]:
    """A note on inputs whose modality is that of a folder's name, because no header states one.

    Args:
        items: of the plan.
        results: of the scan.

    Returns:
        One sentence, or none.
    """
    stated = {(one.source, one.path) for one in results if one.header and one.header.modality}
    guessed = Counter(
        str(item.modality)
        for item in items
        if item.modality is not Modality.OT and not any((file.source, file.path) in stated for file in item.files)
    )
    if not guessed:
        return []
    counts = ", ".join(f"{name} {number}" for name, number in guessed.most_common())
    return [f"modality of {count(guessed.total(), 'input')} is taken from folder names: {counts}; --modality states another"]
