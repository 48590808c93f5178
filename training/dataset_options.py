"""Options that name datasets: which of several versions is meant, and whether they are datasets at all."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import format_location, is_same_place
from crossdim.foundation.manifest_file import read_manifest
from crossdim.foundation.option_types import at_least_one
from crossdim.storage_schema.errors import DocumentError, UsageError
from crossdim.storage_schema.manifest import MANIFEST_PATH
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_dir.run_config import read_run_config


def add_data_version_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-version``."""
    about = "version of one of these datasets, to which files were added (prepare --append); repeatable; default: the newest"
    parser.add_argument("--data-version", type=_parse, action="append", default=[], metavar="URL=N", help=about)


def _parse(text: str) -> tuple[str, int]:
    url, equals, number = text.rpartition("=")
    if not equals or not url:
        raise argparse.ArgumentTypeError(f"takes a dataset of --data and the number of its version, as URL=1; found {text!r}")
    return url, at_least_one(number)


def find_versions(datasets: Sequence[Bucket], asked: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Find which versions of datasets are asked for.

    Args:
        datasets: that are named.
        asked: URL and number of ``--data-version``.

    Returns:
        Numbers by the URL of the dataset.

    Raises:
        UsageError: for a URL that is none of the datasets, or one that is named twice.
    """
    found: dict[str, int] = {}
    for url, number in asked:
        same = next((one.url for one in datasets if is_same_place(one.url, url)), None)
        if same is None:
            raise UsageError(f"--data-version names {format_location(url)}, which is not among the datasets; name it as there")
        if same in found:
            raise UsageError(f"--data-version names {format_location(url)} twice; a run reads one version of a dataset")
        found[same] = number
    return found


def find_manifests(datasets: Sequence[Bucket], versions: Mapping[str, int]) -> list[str]:
    """Find the digest of the manifest of the version that is asked for.

    Args:
        datasets: that are named.
        versions: from :func:`find_versions`.

    Returns:
        For each dataset the digest; empty if no version is asked for.

    Raises:
        UsageError: if there is no such version.
        StorageError: if nothing is published there.
    """
    return [read_manifest(one, versions[one.url]).digest if one.url in versions else "" for one in datasets]


def check_distinct(datasets: Sequence[Bucket], remedy: str) -> None:
    """Refuse a dataset that is named twice.

    Args:
        datasets: that are named.
        remedy: what to do instead, with ``{url}`` for the dataset.

    Raises:
        UsageError: naming it.
    """
    for number, dataset in enumerate(datasets):
        if any(is_same_place(dataset.url, other.url) for other in datasets[:number]):
            where = format_location(dataset.url)
            raise UsageError(f"--data names {where} twice; {remedy.format(url=where)}")


def refuse_runs(datasets: Sequence[Bucket]) -> None:
    """Refuse runs that are named where datasets are expected.

    Raises:
        UsageError: naming the datasets that the run was trained on.
    """
    for dataset in datasets:
        if not dataset.exists(MANIFEST_PATH) and dataset.exists(CONFIG):
            trained = ""
            with contextlib.suppress(DocumentError):
                trained = f"; it was trained on {', '.join(map(format_location, read_run_config(dataset).sources))}"
            raise UsageError(f"{dataset.where('')} is a run, not a dataset{trained}")
