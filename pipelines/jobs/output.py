"""Checks of the output before anything is scanned: it may be empty, unfinished, published, or hold other files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.manifest_file import holds_dataset
from crossdim.foundation.output import check_not_nested, check_output
from crossdim.pipelines.jobs.differences import describe_differences, find_settings, replace_recorded
from crossdim.pipelines.jobs.published_inputs import PublishedInputs
from crossdim.pipelines.jobs.request import RequestDigests
from crossdim.pipelines.jobs.unread import UnreadFormat
from crossdim.pipelines.scratch import scratch_of
from crossdim.pipelines.sources.ignored_names import match_ignored_name
from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.tables import parse_published_columns


def check_free(out: Bucket) -> None:
    """Refuse a folder that holds other files than an unfinished dataset.

    Raises:
        UsageError: naming what is there.
    """
    check_not_nested(out, "dataset", holds_dataset)
    check_output(
        out,
        kind="dataset",
        is_ours=lambda paths: any(map(scratch_of, paths)),
        is_ignored=lambda path: match_ignored_name(path) is not None,
    )


def refuse_other(
    out: Bucket,
    manifest: Manifest,
    settings: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    request: RequestDigests,
    num_files: int,
    record: PublishedInputs | None = None,
) -> NoReturn:
    """Say how a published dataset differs from the one that is asked for.

    Args:
        out: the dataset.
        manifest: of the dataset.
        settings: that are asked for.
        preprocessing: the recipe's, that is asked for.
        request: tells whether settings are those of the dataset.
        num_files: in the sources.
        record: of what the dataset was made from, where there is one.

    Raises:
        StorageError: always.
    """
    likely = {**settings, "name": manifest.name, "recipe": replace_recorded(settings["recipe"], manifest.preprocessing)}
    same_files = manifest.files is None or manifest.files.total == num_files
    found = find_settings(likely, lambda one: request.digest_of(one) == manifest.plan_digest) if same_files else None
    if found is None and record is not None:
        found = find_settings(likely, lambda one: not record.list_other_settings(one))
    described = describe_differences(found or likely, settings) or describe_differences(manifest.preprocessing, preprocessing)
    if manifest.preprocessing_digest != digest(preprocessing):
        how = "by another recipe or with other settings"
    elif found is not None:
        how = "with other options"
    elif manifest.files is not None and manifest.files.total != num_files:
        how = f"from {count(manifest.files.total, 'file')}, where there are {num_files} now"
    else:
        how = "from files of other names or sizes, with other options, or by another version of crossdim"
    differences = f" ({described})" if described else ""
    raise StorageError(f"{out.where('')} holds {manifest.name!r}, made {how}; use another --out{differences}")


def check_objects(out: Bucket, manifest: Manifest) -> None:
    """Check the objects of a published dataset against a listing: one request for a thousand of them.

    Args:
        out: the dataset.
        manifest: of the dataset.

    Raises:
        StorageError: if an object is missing or has another size.
    """
    sizes = {entry.path: entry.size for entry in out.list_objects()}
    lost = [entry.path for entry in manifest.objects if sizes.get(entry.path) != entry.size]
    if lost:
        raise StorageError(
            f"{out.where('')} is published, but {len(lost)} of its {len(manifest.objects)} objects are missing or of another "
            f"size, such as {printable(lost[0])}: restore them, or use another --out"
        )


def read_rows(out: Bucket, manifest: Manifest, role: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read columns of a published table.

    Args:
        out: the dataset.
        manifest: of the dataset.
        role: of the table: ``catalog``, ``quarantine`` or ``ignored``.
        columns: names.

    Returns:
        One dictionary per row, in the order of the parts.

    Raises:
        StorageError: if a part of it is not what was published.
    """
    rows: list[dict[str, Any]] = []
    for entry in manifest.with_role(role):
        rows += parse_published_columns(out.read(entry.path), entry, out.where(entry.path), columns).to_pylist()
    return rows


def count_rows(out: Bucket, manifest: Manifest) -> tuple[dict[str, int], dict[str, int], dict[str, int], dict[str, UnreadFormat]]:
    """Count the files that a published dataset does not hold, from its tables.

    Args:
        out: the dataset.
        manifest: of the dataset.

    Returns:
        Quarantined inputs by rule, ignored files by rule, ignored files by format, and those that look like images.
    """
    quarantined = Counter(row["rule"] for row in read_rows(out, manifest, "quarantine", ["rule"]))
    ignored = read_rows(out, manifest, "ignored", ["uri", "format", "rule"])
    unread: dict[str, UnreadFormat] = {}
    for kind, num_files in Counter(row["format"] for row in ignored if row["rule"] == "format_not_read").most_common():
        example = next(row["uri"] for row in ignored if row["format"] == kind)
        unread[kind] = UnreadFormat(num_files=num_files, example=example)
    by_rule, by_format = (dict(sorted(Counter(row[name] for row in ignored).items())) for name in ("rule", "format"))
    return dict(sorted(quarantined.items())), by_rule, by_format, unread
