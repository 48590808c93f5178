"""The answer for a dataset that is published already."""

from __future__ import annotations

import time
from collections.abc import Sequence

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.output import check_objects, count_rows, read_rows, refuse_other
from crossdim.pipelines.jobs.preparation import Preparation, PrepareResult
from crossdim.pipelines.jobs.request import RequestDigests
from crossdim.pipelines.jobs.splits import count_parts, tell_parts
from crossdim.pipelines.jobs.unchanged import check_unchanged
from crossdim.pipelines.markers import remove_scratch
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import Manifest


def answer_published(
    preparation: Preparation, manifest: Manifest, sources: Sequence[Bucket], files: Sequence[SourceFile], start: float
) -> PrepareResult:
    """Build the result for a dataset that is published already; nothing is scanned, and Ray is not started.

    Args:
        preparation: what is asked for.
        manifest: of the dataset.
        sources: as folders.
        files: as listed.
        start: of the command, in seconds of the monotonic clock.

    Returns:
        What the dataset holds, and whether its sources still are what it was made of.

    Raises:
        StorageError: if the dataset was made of other inputs, in another way, or with another secret key.
    """
    key = preparation.pseudonyms.find_key(sources[0]) if manifest.patient_key_id else None
    if manifest.patient_key_id and (key is None or key.key_id != manifest.patient_key_id):
        found = f"key id {key.key_id} is found" if key else "none is found"
        raise StorageError(
            f"{preparation.out.where('')} was made with the secret key whose key id is {manifest.patient_key_id}, and {found}; "
            "name its key with --salt-file, or use another --out"
        )
    request, settings = RequestDigests(files, key), preparation.settings()
    if manifest.plan_digest != request.digest_of(settings):
        refuse_other(preparation.out, manifest, settings, preparation.recipe.preprocessing(), request, len(files))
    check_objects(preparation.out, manifest)
    named = preparation.pseudonyms.read_name_map(sources[0], manifest.plan_digest) if key else []
    notes = check_unchanged(preparation.out, manifest, sources, files, key=key, names=named)
    remove_scratch(preparation.out)
    parts = count_parts(read_rows(preparation.out, manifest, "catalog", ["key", "split", "patient", "source_sha256"]))
    quarantined, ignored, ignored_formats, unread = count_rows(preparation.out, manifest)
    return PrepareResult(
        manifest=manifest,
        quarantined=quarantined,
        ignored=ignored,
        ignored_formats=ignored_formats,
        unread=unread,
        seconds=time.monotonic() - start,
        already_published=True,
        parts=parts,
        notes=(*tell_parts(parts, preparation.split), *notes),
    )
