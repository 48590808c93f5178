"""One suite for every kind of store: a folder, memory, and a server that speaks S3 over a socket."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from foundation.bucket import TEMPORARY_PREFIX, Bucket, StoredObject, StoreOptions
from storage_schema.errors import StorageError


class StoreSuite:
    """What the platform relies on, wherever the bytes lie. Subclasses say which store ``bucket`` is."""

    @pytest.fixture
    def bucket(self) -> Bucket:
        raise NotImplementedError

    def test_what_was_put_is_read_back(self, bucket):
        """Folders appear by themselves, also deep ones, and empty objects are objects."""
        for path, data in (("a", b"1"), ("deep/er/b.bin", bytes(range(256)) * 999), ("empty", b"")):
            bucket.put(path, data)

            assert bucket.read(path) == data

    def test_putting_again_replaces(self, bucket):
        """A retried task writes the same path; a shorter object must not keep the tail of a longer one."""
        bucket.put("a", b"long long ago")
        bucket.put("a", b"now")

        assert bucket.read("a") == b"now"

    def test_a_range_is_exactly_its_bytes(self, bucket):
        """One sample is one range request."""
        bucket.put("a", bytes(range(200)))

        assert bucket.read_range("a", 0, 1) == b"\x00"
        assert bucket.read_range("a", 17, 100) == bytes(range(17, 117))
        assert bucket.read_range("a", 199, 1) == b"\xc7"

    @pytest.mark.parametrize(("offset", "length"), [(8, 3), (10, 1), (11, 5), (0, 11)])
    def test_a_range_beyond_the_end_is_an_error(self, bucket, offset, length):
        """Stores answer with fewer bytes and no complaint; a catalog that points past its object is broken."""
        bucket.put("a", b"0123456789")

        with pytest.raises(StorageError, match="a: "):
            bucket.read_range("a", offset, length)

    def test_an_empty_range_is_no_request_for_everything(self, bucket):
        """HTTP has no empty range, and clients turn it into the whole object."""
        bucket.put("a", b"0123456789")

        assert bucket.read_range("a", 3, 0) == b""

    def test_only_the_first_creates(self, bucket):
        """The commit of a dataset: of two writers one publishes, and the other learns of it."""
        assert bucket.create("folder/manifest.json", b"first")
        assert not bucket.create("folder/manifest.json", b"second")
        assert bucket.read("folder/manifest.json") == b"first"

    def test_of_many_creators_one_wins(self, bucket):
        """The same under a race, which is when it matters: whoever wins, the bytes are the winner's, whole."""
        bucket.put("other", b"")  # opens the store once, before the threads do
        start = threading.Barrier(6)

        def attempt(number: int) -> bool:
            start.wait()
            return bucket.create("lock", bytes([number]) * 999)

        with ThreadPoolExecutor(6) as pool:
            won = list(pool.map(attempt, range(6)))

        assert sum(won) == 1
        assert bucket.read("lock") == bytes([won.index(True)]) * 999

    def test_a_listing_is_sorted_complete_and_relative(self, bucket):
        """Plans are made from listings, so equal contents must give equal listings."""
        for path in ("b/2.bin", "b/10.bin", "a.bin", "b/c/d/e.bin"):
            bucket.put(path, b"x" * len(path))

        assert bucket.listing() == [StoredObject(path=p, size=len(p)) for p in ("a.bin", "b/10.bin", "b/2.bin", "b/c/d/e.bin")]
        assert [o.path for o in bucket.listing("b")] == ["b/10.bin", "b/2.bin", "b/c/d/e.bin"]
        assert [o.path for o in bucket.at("b").listing("c")] == ["c/d/e.bin"]

    def test_a_listing_ends_at_the_folder_name(self, bucket):
        """``b`` is not the beginning of ``bb``: in an object store both are only prefixes."""
        bucket.put("b/1", b"")
        bucket.put("bb/1", b"")

        assert [o.path for o in bucket.listing("b")] == ["b/1"]

    def test_a_listing_sees_what_others_wrote(self, bucket):
        """Clients cache listings; a resumed run must see the objects of the killed one."""
        bucket.put("a/1", b"")
        assert len(bucket.listing()) == 1
        assert not bucket.exists("a/2")
        self.write_as_another_process(bucket, "a/2")

        assert bucket.exists("a/2")
        assert len(bucket.listing()) == 2

    def write_as_another_process(self, bucket: Bucket, path: str) -> None:
        bucket.put(path, b"")

    def test_exists_knows_objects_folders_and_nothing(self, bucket):
        """Sources are folders, manifests are objects."""
        bucket.put("a/b/c", b"")

        assert [bucket.exists(p) for p in ("a/b/c", "a/b", "a", "", "a/b/cc", "z")] == [True, True, True, True, False, False]

    def test_names_with_odd_letters_are_kept(self, bucket):
        """Hospitals name files as they like."""
        path = "Größe #1/a b+c%20d=e&f.dcm"
        bucket.put(path, b"1")

        assert bucket.read(path) == b"1"
        assert [o.path for o in bucket.listing()] == [path]

    def test_what_is_missing_is_said_in_a_sentence_with_its_url(self, bucket):
        """The URL as the user typed it, not as a client spells it."""
        bucket.put("present", b"")
        for act in (bucket.read, bucket.listing, lambda path: bucket.read_range(path, 0, 4)):
            with pytest.raises(StorageError, match="does not exist") as caught:
                act("absent/x.bin")
            assert f"{bucket.url}/absent/x.bin" in str(caught.value)

    def test_deleting_removes_a_folder_whole(self, bucket):
        """What was deleted neither lists nor exists."""
        for path in ("a/1", "a/b/2", "keep"):
            bucket.put(path, b"")
        bucket.delete("a")

        assert [o.path for o in bucket.listing()] == ["keep"]
        assert not bucket.exists("a")

    def test_a_bucket_travels_to_workers(self, bucket):
        """It is a value: the copy opens its own store."""
        bucket.put("a", b"1")
        copy = pickle.loads(pickle.dumps(bucket))

        assert copy == bucket
        assert copy.read("a") == b"1"


class TestFolder(StoreSuite):
    @pytest.fixture
    def bucket(self, tmp_path):
        return Bucket(str(tmp_path / "lab"))

    def test_a_file_url_is_the_same_folder(self, bucket):
        """Both spellings are allowed everywhere."""
        bucket.put("a", b"1")

        assert Bucket(f"file://{bucket.url}").read("a") == b"1"
        assert Bucket(bucket.url + "/").listing() == bucket.listing()

    def test_a_relative_path_is_found(self, tmp_path, monkeypatch):
        """``crossdim prepare raw --out data``."""
        monkeypatch.chdir(tmp_path)
        Bucket("data").put("x/a", b"1")

        assert (tmp_path / "data/x/a").read_bytes() == b"1"
        assert [o.path for o in Bucket("data").listing()] == ["x/a"]

    def test_half_written_files_are_not_listed(self, bucket):
        """A killed writer leaves them behind; nobody may take one for a sample."""
        bucket.put("a/1", b"")
        Path(bucket.full(f"a/{TEMPORARY_PREFIX}7")).write_bytes(b"half")

        assert [o.path for o in bucket.listing()] == ["a/1"]

    @pytest.mark.parametrize("write", [Bucket.put, Bucket.create])
    def test_a_reader_never_sees_half_an_object(self, bucket, write, monkeypatch):
        """If the machine stops before the bytes are safe, the name does not exist, or still means the old object."""
        bucket.put("old", b"old")

        def power_cut(_: int) -> None:
            raise OSError("power cut")

        monkeypatch.setattr(os, "fsync", power_cut)
        for path in ("old", "new"):
            with pytest.raises(StorageError, match="power cut"):
                write(bucket, path, b"x" * 100)

        assert [(o.path, o.size) for o in bucket.listing()] == [("old", 3)]
        assert os.listdir(bucket.root) == ["old"]

    def test_a_folder_in_the_way_of_an_object_is_said(self, bucket):
        """And the half-written file is gone."""
        bucket.put("a/b", b"")
        with pytest.raises(StorageError, match="writing failed"):
            bucket.put("a", b"1")

        assert os.listdir(bucket.root) == ["a"]


class TestMemory(StoreSuite):
    @pytest.fixture
    def bucket(self) -> Iterator[Bucket]:
        bucket = Bucket(f"memory://{uuid4().hex}")
        yield bucket
        bucket.filesystem.store.clear()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A real S3 server on a free port of this machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(url: str):
    return boto3.client("s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1")


class TestS3(StoreSuite):
    @pytest.fixture
    def bucket(self, s3):
        name = f"lab-{uuid4().hex[:8]}"
        client(s3).create_bucket(Bucket=name)
        options = StoreOptions(endpoint_url=s3, access_key="k", secret_key="s", region="us-east-1")
        return Bucket(f"s3://{name}/folder", options)

    def write_as_another_process(self, bucket, path):
        name, _, folder = bucket.root.partition("/")
        client(bucket.options.endpoint_url).put_object(Bucket=name, Key=f"{folder}/{path}", Body=b"")

    def test_a_bucket_that_does_not_exist_is_said(self, bucket):
        """The commonest typing error of all."""
        absent = Bucket("s3://no-such-bucket/x", bucket.options)
        for act in (absent.listing, lambda: absent.read("a"), lambda: absent.put("a", b"1")):
            with pytest.raises(StorageError, match=r"s3://no-such-bucket/x"):
                act()

    @pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "no url at all"])
    def test_a_server_that_is_not_there_is_said(self, endpoint):
        """Within seconds, with the address that was tried."""
        with pytest.raises(StorageError) as caught:
            Bucket("s3://lab", StoreOptions(endpoint_url=endpoint, access_key="k", secret_key="s")).read("a")
        assert endpoint in str(caught.value)


def test_an_unknown_protocol_is_said():
    """``s4://`` is a typing error, not a fault of ours."""
    with pytest.raises(StorageError, match="no store speaks s4://"):
        Bucket("s4://lab").read("a")


def test_a_secret_is_not_shown():
    """Options stand in logs and error messages."""
    assert "hunter2" not in repr(Bucket("s3://lab", StoreOptions(access_key="k", secret_key="hunter2")))
