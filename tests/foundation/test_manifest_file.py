"""Versions of a dataset: which process publishes one, and what is found when it is killed between its two writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import (
    find_newest_manifest,
    find_version_number,
    list_versions,
    publish_next_version,
    read_manifest,
)
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, FileCounts, Manifest
from crossdim.storage_schema.versions import is_dataset_object, version_path
from crossdim.storage_schema.vocabulary import Presentation

FIRST = Manifest(
    name="xr",
    presentation=Presentation.IMAGE,
    num_samples=0,
    num_quarantined=0,
    preprocessing={},
    plan_digest="0" * 64,
    objects=(),
    files=FileCounts(total=0, used=0, quarantined=0, ignored=0),
)
SECOND, OTHER, THIRD = (replace(FIRST, plan_digest=digit * 64) for digit in "123")


@pytest.fixture(params=["files", "s3"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """A dataset of one version, as files and as objects."""
    bucket: Bucket = Bucket(str(tmp_path)) if request.param == "files" else request.getfixturevalue("s3_bucket").at("xr")
    bucket.put(MANIFEST_PATH, FIRST.to_bytes())
    return bucket


def test_versions_are_numbered_and_all_are_found(dataset: Bucket) -> None:
    assert (list_versions(dataset), find_version_number(dataset, FIRST), read_manifest(dataset, 1)) == ([], 1, FIRST)
    publish_next_version(dataset, FIRST, SECOND, 2)
    publish_next_version(dataset, SECOND, THIRD, 3)

    assert [read_manifest(dataset, number) for number in (1, 2, 3, None)] == [FIRST, SECOND, THIRD, THIRD]
    assert [find_version_number(dataset, one) for one in (FIRST, SECOND, THIRD)] == [1, 2, 3]
    assert read_manifest(dataset, prefer_digest=SECOND.digest) == SECOND
    assert read_manifest(dataset, prefer_digest=OTHER.digest) == THIRD
    with pytest.raises(UsageError, match="has no version 4"):
        read_manifest(dataset, 4)


def test_a_version_that_another_process_has_created_and_not_made_the_newest_is_not_replaced(dataset: Bucket) -> None:
    """Whoever writes next makes it the newest; until then readers find the one before."""
    dataset.put(version_path(1), FIRST.to_bytes())
    dataset.put(version_path(2), OTHER.to_bytes())
    with pytest.raises(StorageError, match="another process has published version 2"):
        publish_next_version(dataset, FIRST, SECOND, 2)

    assert (read_manifest(dataset), read_manifest(dataset, 2)) == (FIRST, OTHER)
    assert find_newest_manifest(dataset) == OTHER
    assert read_manifest(dataset) == OTHER


def test_a_version_is_not_published_over_a_later_one(dataset: Bucket) -> None:
    publish_next_version(dataset, FIRST, OTHER, 2)
    with pytest.raises(StorageError, match="another process has published version 2"):
        publish_next_version(dataset, FIRST, SECOND, 2)
    publish_next_version(dataset, OTHER, THIRD, 3)
    publish_next_version(dataset, OTHER, THIRD, 3)  # the same once more, as after an answer that was lost

    assert (read_manifest(dataset), list_versions(dataset)) == (THIRD, [1, 2, 3])


def test_a_newest_manifest_that_is_none_of_the_versions_is_told(dataset: Bucket) -> None:
    publish_next_version(dataset, FIRST, SECOND, 2)
    with pytest.raises(StorageError, match="is none of the versions"):
        find_version_number(dataset, OTHER)


@pytest.mark.parametrize(
    ("path", "is_object"),
    [
        ("manifests/v12.json", True),
        ("catalog/part-00000.parquet", True),
        ("ignored/v2-0a1b2c3d/part-00001.parquet", True),
        ("images/xr-v2-0a1b2c3d-000000.tar", True),
        ("superpatches/ct-1mm.zarr/c/12/0/0/0", True),
        ("superpatches/ct-1mm.zarr/zarr.json", True),
        ("inputs/0123456789abcdef.json", True),
        ("manifest.json", False),
        ("dataset.html", False),
        ("previews.json", False),
        ("manifests/v02.json", False),
        ("catalog/part-00000.parquet\n", False),
        ("images/notes.tar", False),
        ("other/catalog/part-00000.parquet", False),
        ("_work/0123456789abcdef/000000.json", False),
    ],
)
def test_which_paths_are_those_of_objects_that_preparations_write(path: str, is_object: bool) -> None:
    assert is_dataset_object(path) is is_object
