"""Checks of a location, on a real S3 server: all pass and leave nothing; with each fault of a store, its check fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.storage_checks import check_storage
from tests.foundation.faulty_store import Answer, Fault, Pass, Request, faulty_store
from tests.ports import free_port

pytestmark = pytest.mark.integration

NAMES = ["clock", "location", "write", "read", "read range", "list", "create once", "delete"]
DENIED = Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")


def _levels(results: list[CheckResult]) -> dict[str, str]:
    return {one.check.removeprefix("storage "): str(one.level) for one in results}


def _names(client: Any, bucket: Bucket) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket=bucket.url.removeprefix("s3://")).get("Contents", [])]


def test_a_sound_store_passes_and_is_left_as_it_was(s3_bucket: Bucket, s3_client: Any) -> None:
    others = ["ct/manifest.json", "ct/.crossdim-tmp-others", "ct/.hidden"]
    for name in others:
        s3_client.put_object(Bucket=s3_bucket.url.removeprefix("s3://"), Key=name, Body=b"x")
    assert _levels(check_storage(s3_bucket.at("ct"))) == dict.fromkeys(NAMES, "ok")
    assert sorted(_names(s3_client, s3_bucket)) == sorted(others)


@pytest.mark.parametrize("path", ["", "data", "not/yet/there"])
def test_a_folder_passes_and_is_left_as_it_was(path: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert _levels(check_storage(Bucket(str(tmp_path / path)))) == dict.fromkeys(NAMES, "ok")
    assert [one.name for one in tmp_path.rglob("*")] == ["data"]


def test_a_folder_that_may_not_be_written_to(ordinary_user: Path) -> None:
    closed = ordinary_user / "closed"
    closed.mkdir(mode=0o500)
    results = check_storage(Bucket(str(closed)))
    assert _levels(results) == {"clock": "ok", "location": "ok", "write": "failure", "delete": "ok"}
    assert results[2].remedy == f"check rights and owner: ls -ld {closed}"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert _levels(check_storage(Bucket(str(tmp_path / "file"))))["write"] == "failure"
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_store_that_cannot_be_written_to_by_its_protocol() -> None:
    assert _levels(check_storage(Bucket(f"http://127.0.0.1:{free_port()}")))["write"] == "failure"


def test_a_store_that_nobody_knows_is_no_matter_of_rights() -> None:
    _, location, write = check_storage(Bucket("nonsense://lab"))[:3]
    assert (location.level, "no store speaks nonsense://" in location.found) == (Level.FAILURE, True)
    assert (write.level, "no store speaks nonsense://" in write.found) == (Level.FAILURE, True)
    assert write.remedy.endswith("else correct what this names; the options of a store are listed by: crossdim doctor --help")


def test_nothing_that_listens(s3_bucket: Bucket) -> None:
    options = replace(s3_bucket.options, endpoint_url=f"http://127.0.0.1:{free_port()}")
    results = check_storage(Bucket("s3://never-asked-before", options))
    assert _levels(results) == {"clock": "failure", "location": "failure"}
    assert all("nothing listens there" in one.found for one in results)
    assert {one.remedy for one in results} == {f"see what answers there: curl -I {options.endpoint_url}"}


def test_a_bucket_that_does_not_exist(s3_bucket: Bucket) -> None:
    results = check_storage(replace(s3_bucket, url="s3://no-such-bucket-here"))
    assert _levels(results) == {"clock": "ok", "location": "failure"}
    assert "the bucket does not exist" in results[1].found


def test_a_bucket_of_another_region(s3_endpoint: str, s3_bucket: Bucket) -> None:
    body = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    elsewhere = Answer(301, {"Content-Type": "application/xml", "x-amz-bucket-region": "eu-west-3"}, body)
    with faulty_store(s3_endpoint, lambda *_: elsewhere) as endpoint:
        results = check_storage(replace(s3_bucket, options=replace(s3_bucket.options, endpoint_url=endpoint)))
    [location] = [one for one in results if one.check == "storage location"]
    assert (location.level, "use --region eu-west-3" in location.found) == (Level.FAILURE, True)
    assert location.remedy.endswith(": crossdim doctor --help")


@pytest.mark.parametrize(
    ("fault", "action", "below"),
    [
        ("writes refused", "s3:PutObject", "/ct/*"),
        ("reads refused", "s3:GetObject", "/ct/*"),
        ("listings late", "s3:ListBucket", ""),
        ("deletes refused", "s3:DeleteObject", "/ct/*"),
    ],
)
def test_a_right_that_is_missing_can_be_pasted_into_a_policy(
    fault: str, action: str, below: str, s3_endpoint: str, s3_bucket: Bucket
) -> None:
    with faulty_store(s3_endpoint, FAULTS[fault][0]) as endpoint:
        bucket = replace(s3_bucket.at("ct"), options=replace(s3_bucket.options, endpoint_url=endpoint))
        failed = next(one for one in check_storage(bucket) if one.level is Level.FAILURE)
    resource = f"arn:aws:s3:::{s3_bucket.url.removeprefix('s3://')}{below}"
    expected = {"Effect": "Allow", "Action": action, "Resource": resource}
    assert json.loads(failed.remedy[failed.remedy.index("{") :]) == expected


def _is_object(request: Request) -> bool:
    return "/.crossdim-tmp-doctor-" in request.path.partition("?")[0]


def _refuse(method: str) -> Fault:
    return lambda request, forward: DENIED if request.method == method and _is_object(request) else forward(request)


def _refuse_deletes(request: Request, forward: Pass) -> Answer:
    return DENIED if request.method == "POST" else forward(request)


def _keep_deleted(request: Request, forward: Pass) -> Answer:
    return Answer(200, {"Content-Type": "application/xml"}, b"<DeleteResult/>") if request.method == "POST" else forward(request)


def _change_bytes(request: Request, forward: Pass) -> Answer:
    answer = forward(request)
    changed = request.method == "GET" and _is_object(request) and "Range" not in request.headers
    return replace(answer, body=answer.body[::-1]) if changed else answer


def _drop(header: str) -> Fault:
    def fault(request: Request, forward: Pass) -> Answer:
        kept = {name: value for name, value in request.headers.items() if name.lower() != header}
        return forward(replace(request, headers=kept))

    return fault


def _list_nothing(request: Request, forward: Pass) -> Answer:
    """For a prefix that is no folder, as caches of listings do for what is new."""
    answer = forward(request)
    if request.method == "GET" and not _is_object(request) and "doctor" in request.path and "max-keys" not in request.path:
        body = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>x</Name></ListBucketResult>'
        return replace(answer, body=body)
    return answer


FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "writes refused": (_refuse("PUT"), {"write"}),
    "reads refused": (_refuse("GET"), {"read", "read range", "create once"}),
    "other bytes": (_change_bytes, {"read", "create once"}),
    "ranges ignored": (_drop("range"), {"read range"}),
    "conditions ignored": (_drop("if-none-match"), {"create once"}),
    "listings late": (_list_nothing, {"list"}),
    "deletes refused": (_refuse_deletes, {"delete"}),
    "deletes without effect": (_keep_deleted, {"delete"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_a_store_fails_its_check(name: str, s3_endpoint: str, s3_bucket: Bucket, s3_client: Any) -> None:
    fault, failing = FAULTS[name]
    with faulty_store(s3_endpoint, fault) as endpoint:
        results = check_storage(replace(s3_bucket, options=replace(s3_bucket.options, endpoint_url=endpoint)))
    failed = [one for one in results if one.level is Level.FAILURE]
    assert {one.check.removeprefix("storage ") for one in failed} == failing
    assert all(one.remedy for one in failed)
    assert bool(_names(s3_client, s3_bucket)) == (failing == {"delete"})


def _set_date(text: Callable[[], str | None]) -> Fault:
    def fault(request: Request, forward: Pass) -> Answer:
        answer = forward(request)
        kept = {name: value for name, value in answer.headers.items() if name.lower() != "date"}
        return replace(answer, headers=kept | ({"Date": date} if (date := text()) else {}))

    return fault


@pytest.mark.parametrize(
    ("ahead_s", "level", "direction"),
    [
        (0, "ok", ""),
        (-40, "ok", "ahead of"),
        (-90, "warning", "ahead of"),
        (90, "warning", "behind"),
        (1000, "failure", "behind"),
    ],
)
def test_clocks_that_differ(ahead_s: int, level: str, direction: str, s3_endpoint: str, s3_bucket: Bucket) -> None:
    """S3 itself refuses requests from 15 minutes on."""
    with faulty_store(s3_endpoint, _set_date(lambda: formatdate(time() + ahead_s, usegmt=True))) as endpoint:
        clock, *_ = check_storage(replace(s3_bucket, options=replace(s3_bucket.options, endpoint_url=endpoint)))
    assert (clock.check, clock.level) == ("storage clock", level)
    assert direction in clock.found
    assert ("timedatectl" in clock.remedy) == (level != "ok")


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_store_without_a_clock(date: str | None, s3_endpoint: str, s3_bucket: Bucket) -> None:
    with faulty_store(s3_endpoint, _set_date(lambda: date)) as endpoint:
        clock, *_ = check_storage(replace(s3_bucket, options=replace(s3_bucket.options, endpoint_url=endpoint)))
    assert (clock.level, clock.found) == (Level.WARNING, "the store states no time")


def test_the_clock_is_told_where_the_store_refuses_because_of_it(s3_endpoint: str, s3_bucket: Bucket) -> None:
    """By how much, which the refusal does not say."""
    late = formatdate(time() - 7200, usegmt=True)
    skewed = b"<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>"
    refusal = Answer(403, {"Content-Type": "application/xml", "Date": late}, skewed)
    with faulty_store(s3_endpoint, lambda *_: refusal) as endpoint:
        clock, location = check_storage(replace(s3_bucket, options=replace(s3_bucket.options, endpoint_url=endpoint)))
    assert (clock.level, location.level) == (Level.FAILURE, Level.FAILURE)
    assert 7190 < int(clock.found.split(" s ahead")[0].rpartition(" ")[2]) < 7260
