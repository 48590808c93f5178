"""No character of a name is a pattern: every act on one object or folder leaves its neighbours as they are, to the byte."""

from __future__ import annotations

import os
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.storage_schema.names import escape_name

#: Every character that a shell, a glob, a URL, a template or XML reads as more than itself, and some that look like others.
SPECIAL = "*?[]{}!^#%+ ~$&'()=,;@:\\|<>\"`-._\n\r\t\x01é\u0301肺\u202e0a1bA"
parts = st.text(alphabet=SPECIAL, min_size=1, max_size=6).filter(lambda part: part not in (".", ".."))
#: The server of the tests answers 404 where a line ends within a key.
keys = parts.map(lambda part: part.replace("\n", "\t").replace("\r", "\t"))


def neighbours(part: str) -> list[str]:
    """Names that a pattern made of ``part`` might match, or that begin like it."""
    stems = {part + "2", part + "-", part + ".", "x" + part, part[:-1], part.replace("*", "any"), part.replace("?", "q")}
    stems |= {part.replace("[", "").replace("]", ""), part.strip(), part.lower(), part.upper(), "exp7"}
    return sorted(stem for stem in stems if stem not in ("", ".", "..", part))


@pytest.fixture(scope="module")
def s3_root(s3_endpoint: str, s3_client: Any) -> tuple[str, Bucket]:
    """A bucket for this module."""
    name = f"exact-{uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=name)
    return name, Bucket(
        f"s3://{name}", StoreOptions(endpoint_url=s3_endpoint, access_key="k", secret_key="s", region="us-east-1")
    )


def emptied(client: Any, name: str) -> None:
    """Remove what a failed example left."""
    for key in s3_keys(client, name):
        client.delete_object(Bucket=name, Key=key)


def s3_keys(client: Any, name: str) -> dict[str, bytes]:
    """Every key of a bucket with its bytes, by boto3."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=name)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}


def files_of(folder: str) -> dict[bytes, bytes]:
    """Every file of a folder with its bytes, by os.walk."""
    found = {}
    for where, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            place = os.path.join(where, name)
            found[os.path.relpath(place, os.fsencode(folder))] = Path(os.fsdecode(place)).read_bytes()
    return found


@settings(max_examples=15)
@given(part=keys)
@example(part="exp[7]")
@example(part="*")
@example(part="a?")
@example(part="[!x]*")
@example(part="a?versionId=1")
@example(part="a\x01")
@example(part="{a,b}")
@example(part="~")
@example(part=" a ")
@pytest.mark.integration
def test_on_s3_a_delete_removes_its_own_keys_and_nothing_else(part, s3_root, s3_client):
    """Held to boto3: a folder, an object of the same name, and keys with empty names in it."""
    name, bucket = s3_root
    emptied(s3_client, name)
    mine = [f"{part}/1", f"{part}/{part}/2", f"{part}//3", f"{part}/4/", part]
    others = [f"{other}{end}" for other in neighbours(part) for end in ("/1", "")]
    for key in (*mine, *others):
        s3_client.put_object(Bucket=name, Key=key, Body=key.encode())
    everything = s3_keys(s3_client, name)
    assert set(everything) == {*mine, *others}  # the server keeps such names

    bucket.delete(part)
    assert s3_keys(s3_client, name) == {key: data for key, data in everything.items() if key not in mine}


@settings(max_examples=15)
@given(part=keys)
@example(part="exp[7]")
@example(part="a?versionId=1")
@example(part="trailing ")
@pytest.mark.integration
def test_on_s3_what_is_put_is_what_others_read_under_that_key(part, s3_root, s3_client):
    """Written, listed, read, looked for: all under the exact key, in a root that is itself spelled so."""
    name, bucket = s3_root
    emptied(s3_client, name)
    inner = bucket.at(part) if "?versionId=" not in part else bucket
    for path in (f"{part}//{part}", f"{part}/end/"):
        inner.put(path, path.encode())
    inner.create("one", b"1")
    prefix = inner.root.removeprefix(name).lstrip("/")
    expected = {f"{prefix}/{path}".lstrip("/") for path in (f"{part}//{part}", f"{part}/end/", "one")}

    assert set(s3_keys(s3_client, name)) == expected
    assert {one.path for one in inner.list_objects()} == {f"{part}//{part}", f"{part}/end/", "one"}
    for one in inner.list_objects():
        assert inner.exists(one.path)
        if one.path != "one":
            assert inner.read(one.path) == one.path.encode() == inner.read_range(one.path, 0, one.size)
    assert not inner.exists(f"{part}2")
    assert not inner.exists(f"{part}//{part}x")


@settings(max_examples=60)
@given(part=parts)
@example(part="exp[7]")
@example(part="*")
@example(part="~")
@example(part="file:x")
@example(part=" a ")
@pytest.mark.integration
def test_among_files_a_delete_removes_its_own_and_nothing_else(part):
    """Held to os.walk, with the name as root, as folder and as object."""
    with tempfile.TemporaryDirectory() as folder:
        for other in neighbours(part):
            for place in (Path(folder, other, "1"), Path(folder, part, other)):
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(other.encode())
        Bucket(f"{folder}/{part}").put(f"{part}/1", b"mine")
        Bucket(folder).put(f"{part}/{part}/2/{part}", b"mine")
        everything = files_of(folder)
        own = {name for name, data in everything.items() if data == b"mine"}
        assert own == {os.fsencode(f"{part}/{part}/1"), os.fsencode(f"{part}/{part}/2/{part}")}

        Bucket(f"{folder}/{part}").delete(part)
        assert files_of(folder) == {name: data for name, data in everything.items() if name not in own}

        for one in Bucket(folder).list_objects():
            Bucket(folder).delete(one.path)
        assert files_of(folder) == {}


@pytest.mark.parametrize("part", ["exp[7]", "*", "a?"])
def test_in_memory_a_delete_removes_its_own_and_nothing_else(part):
    """The same for a store that only fsspec knows."""
    bucket = Bucket(f"memory://{uuid4().hex}")
    for other in (*neighbours(part), part):
        bucket.put(f"{other}/1", other.encode())
    bucket.delete(part)

    assert {one.path for one in bucket.list_objects()} == {f"{other}/1" for other in neighbours(part)}


@pytest.mark.integration
def test_more_keys_than_a_page_are_deleted_and_listed(s3_root, s3_client):
    """S3 lists and deletes a thousand at a time."""
    name, bucket = s3_root
    emptied(s3_client, name)
    for number in range(1003):
        s3_client.put_object(Bucket=name, Key=f"many/{number}", Body=b"")
    s3_client.put_object(Bucket=name, Key="many2/1", Body=b"")

    assert len(bucket.list_objects("many")) == 1003
    bucket.delete("many")
    assert list(s3_keys(s3_client, name)) == ["many2/1"]
    bucket.delete("many2")


def test_what_a_store_refuses_to_delete_is_said(s3_root, monkeypatch):
    """A bulk delete answers 200 and tells of each refused key in its body."""
    _, bucket = s3_root
    bucket.put("kept/1", b"1")
    call = bucket.filesystem.call_s3

    def refusing(method: str, **request: Any) -> Any:
        if method == "delete_objects":
            return {"Errors": [{"Key": "kept/1", "Code": "AccessDenied", "Message": "Access Denied"}]}
        return call(method, **request)

    monkeypatch.setattr(bucket.filesystem, "call_s3", refusing)
    with pytest.raises(Exception, match=r"s3://exact-\w+/kept.*1 objects stay, such as kept/1.*deleting"):
        bucket.delete("kept")
    monkeypatch.undo()
    bucket.delete("kept")


def test_large_objects_are_read_in_parts(s3_root, s3_client, monkeypatch):
    """Parts meet at their borders, whatever the size."""
    name, bucket = s3_root
    monkeypatch.setattr("crossdim.foundation.s3_objects.PART_BYTES", 1000)
    for size in (999, 1000, 1001, 2500, 0):
        data = os.urandom(size)
        s3_client.put_object(Bucket=name, Key="large", Body=data)
        assert bucket.read("large") == data
    bucket.delete("large")


@given(
    name=st.binary(min_size=1, max_size=8).filter(lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b".."))
)
@example(name=b"M\xfcller.png")
@example(name=rb"\xfc")
@example(name=rb"\x5cxfc")
def test_files_whose_names_are_not_utf8_are_listed_and_read(name):
    """By the path that is written down, which is UTF-8."""
    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(os.fsencode(folder), name)
        with open(place, "wb") as file:
            file.write(b"1")
        [one] = Bucket(folder).list_objects()
        assert one.path.encode()
        assert one.path == escape_name(os.fsdecode(name))
        assert Bucket(folder).read(one.path) == b"1"
        Bucket(folder).delete(one.path)
        assert os.listdir(folder) == []


def test_a_web_server_that_lists_no_sizes_is_refused_in_words(tmp_path):
    """Pages of a web server name files without their sizes, and every input is held to the size that it was listed with."""
    (tmp_path / "a.png").write_bytes(b"x")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            with pytest.raises(StorageError, match="without its size; copy the files"):
                Bucket(f"http://127.0.0.1:{server.server_port}/").list_objects()
        finally:
            server.shutdown()


class _Refusing(SimpleHTTPRequestHandler):
    """Answers every request with a status; 404 means that nothing is there."""

    status = 403

    def do_GET(self) -> None:
        self.send_error(self.status)

    do_HEAD = do_GET


@pytest.mark.parametrize("status", [403, 500, 404])
def test_a_web_server_that_refuses_has_not_said_that_nothing_is_there(status: int) -> None:
    handler = type("Handler", (_Refusing,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        bucket = Bucket(f"http://127.0.0.1:{server.server_port}/data")
        try:
            if status == 404:
                assert not bucket.exists("manifest.json")
            else:
                with pytest.raises(StorageError, match=f"looking for.*{status}"):
                    bucket.exists("manifest.json")
        finally:
            server.shutdown()


def test_a_web_server_that_is_away_has_not_said_that_nothing_is_there() -> None:
    with pytest.raises(UnreachableError, match=r"manifest\.json"):
        Bucket("http://127.0.0.1:9/data").exists("manifest.json")


def test_a_folder_that_may_not_be_entered_has_not_said_that_nothing_is_there(ordinary_user: Path) -> None:
    closed = ordinary_user / "closed"
    closed.mkdir()
    closed.chmod(0o600)
    with pytest.raises(StorageError, match="not allowed"):
        Bucket(str(closed)).exists("manifest.json")
    closed.chmod(0o700)
    assert not Bucket(str(closed)).exists("manifest.json")
    assert not Bucket(str(closed)).exists("a" * 300), "no file can have this name"
