"""One suite for every kind of store: a folder, memory, and a server that speaks S3 over a socket."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

import crossdim.foundation.store_options as module
from crossdim.foundation.bucket import TEMPORARY_PREFIX, Bucket, StoredObject, StoreOptions
from crossdim.storage_schema.errors import StorageError, UnreachableError
from tests.system.relay import Relay


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

    @pytest.mark.integration
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

        assert bucket.list_objects() == [
            StoredObject(path=p, size=len(p)) for p in ("a.bin", "b/10.bin", "b/2.bin", "b/c/d/e.bin")
        ]
        assert [o.path for o in bucket.list_objects("b")] == ["b/10.bin", "b/2.bin", "b/c/d/e.bin"]
        assert [o.path for o in bucket.at("b").list_objects("c")] == ["c/d/e.bin"]

    def test_a_listing_ends_at_the_folder_name(self, bucket):
        """``b`` is not the beginning of ``bb``: in an object store both are only prefixes."""
        bucket.put("b/1", b"")
        bucket.put("bb/1", b"")

        assert [o.path for o in bucket.list_objects("b")] == ["b/1"]

    def test_a_listing_sees_what_others_wrote(self, bucket):
        """Clients cache listings; a resumed run must see the objects of the killed one."""
        bucket.put("a/1", b"")
        assert len(bucket.list_objects()) == 1
        assert not bucket.exists("a/2")
        self.write_as_another_process(bucket, "a/2")

        assert bucket.exists("a/2")
        assert len(bucket.list_objects()) == 2

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
        assert [o.path for o in bucket.list_objects()] == [path]

    def test_what_is_missing_is_said_in_a_sentence_with_its_url(self, bucket):
        """The URL as the user typed it, not as a client spells it."""
        bucket.put("present", b"")
        for act in (bucket.read, bucket.list_objects, lambda path: bucket.read_range(path, 0, 4)):
            with pytest.raises(StorageError, match="does not exist") as caught:
                act("absent/x.bin")
            assert f"{bucket.url}/absent/x.bin" in str(caught.value)

    def test_deleting_removes_a_folder_whole(self, bucket):
        """What was deleted neither lists nor exists."""
        for path in ("a/1", "a/b/2", "keep"):
            bucket.put(path, b"")
        bucket.delete("a")

        assert [o.path for o in bucket.list_objects()] == ["keep"]
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
        assert Bucket(bucket.url + "/").list_objects() == bucket.list_objects()

    def test_a_relative_path_is_found(self, tmp_path, monkeypatch):
        """``crossdim prepare raw --out data``."""
        monkeypatch.chdir(tmp_path)
        Bucket("data").put("x/a", b"1")

        assert (tmp_path / "data/x/a").read_bytes() == b"1"
        assert [o.path for o in Bucket("data").list_objects()] == ["x/a"]

    def test_half_written_files_are_not_listed(self, bucket):
        """A killed writer leaves them behind; nobody may take one for a sample."""
        bucket.put("a/1", b"")
        Path(bucket.full(f"a/{TEMPORARY_PREFIX}7")).write_bytes(b"half")

        assert [o.path for o in bucket.list_objects()] == ["a/1"]

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

        assert [(o.path, o.size) for o in bucket.list_objects()] == [("old", 3)]
        assert os.listdir(bucket.root) == ["old"]

    def test_a_folder_in_the_way_of_an_object_is_said(self, bucket):
        """And the half-written file is gone."""
        bucket.put("a/b", b"")
        with pytest.raises(StorageError, match="writing failed"):
            bucket.put("a", b"1")

        assert os.listdir(bucket.root) == ["a"]

    @pytest.mark.parametrize("write", [Bucket.put, Bucket.create])
    def test_a_full_disk_is_said_at_once_with_its_place(self, tmp_path, write, monkeypatch):
        """Waiting does not empty it, so no patience applies; nothing half-written stays behind."""
        calls = _failing_fsync(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        bucket = Bucket(str(tmp_path), StoreOptions(patience_s=60))
        with pytest.raises(StorageError, match=f"no space is left at {tmp_path}; free some there or choose another place"):
            write(bucket, "a/b", b"1")

        assert len(calls) == 1
        assert os.listdir(tmp_path / "a") == []

    def test_files_are_never_waited_for(self, tmp_path, monkeypatch):
        """What a disk refuses it refuses; a network folder waits by itself."""
        calls = _failing_fsync(monkeypatch, TimeoutError("slow disk"))
        with pytest.raises(StorageError, match="slow disk") as caught:
            Bucket(str(tmp_path), StoreOptions(patience_s=60)).put("a", b"1")

        assert len(calls) == 1
        assert not isinstance(caught.value, UnreachableError)


def _failing_fsync(monkeypatch: pytest.MonkeyPatch, error: OSError) -> list[int]:
    """Let every fsync fail; the calls are counted in the list."""
    calls: list[int] = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    return calls


class TestMemory(StoreSuite):
    @pytest.fixture
    def bucket(self) -> Iterator[Bucket]:
        bucket = Bucket(f"memory://{uuid4().hex}")
        yield bucket
        bucket.filesystem.store.clear()


@pytest.mark.integration
class TestS3(StoreSuite):
    @pytest.fixture
    def bucket(self, s3_bucket, s3_client):
        self.other_client = s3_client
        return s3_bucket.at("folder")

    def write_as_another_process(self, bucket, path):
        name, _, folder = bucket.root.partition("/")
        self.other_client.put_object(Bucket=name, Key=f"{folder}/{path}", Body=b"")

    def test_a_bucket_that_does_not_exist_is_said(self, bucket):
        """The commonest typing error of all."""
        absent = Bucket("s3://no-such-bucket/x", bucket.options)
        for act in (absent.list_objects, lambda: absent.read("a"), lambda: absent.put("a", b"1")):
            with pytest.raises(StorageError, match=r"s3://no-such-bucket/x"):
                act()

    @pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "no url at all"])
    def test_a_server_that_is_not_there_is_said(self, endpoint):
        """Within seconds, with the address that was tried."""
        with pytest.raises(StorageError) as caught:
            Bucket("s3://lab", StoreOptions(endpoint_url=endpoint, access_key="k", secret_key="s")).read("a")
        assert endpoint in str(caught.value)


OPERATIONS: dict[str, tuple[Callable[[Bucket], object], object]] = {
    "read": (lambda bucket: bucket.read("a"), b"0123456789"),
    "read_range": (lambda bucket: bucket.read_range("a", 2, 3), b"234"),
    "exists": (lambda bucket: bucket.exists("a"), True),
    "exists, of a whole bucket": (lambda bucket: Bucket(f"s3://{bucket.root.split('/')[0]}", bucket.options).exists(), True),
    "listing": (lambda bucket: [stored.path for stored in bucket.list_objects()], ["a"]),
    "put": (lambda bucket: bucket.put("b", b"1"), None),
    "create": (lambda bucket: bucket.create("b", b"1"), True),
    "delete": (lambda bucket: bucket.delete("a"), None),
}


@pytest.mark.integration
class TestOutage:
    """A store behind a relay that can be closed."""

    @pytest.fixture
    def relay(self, s3_endpoint) -> Iterator[Relay]:
        with Relay(int(s3_endpoint.rsplit(":", 1)[1])) as relay:
            yield relay

    @pytest.fixture
    def direct(self, s3_bucket) -> Bucket:
        """The store itself, with one object; it is reached without the relay."""
        bucket = s3_bucket.at("folder")
        bucket.put("a", b"0123456789")
        return bucket

    @pytest.mark.parametrize("outage", [Relay.cut, Relay.stall])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_an_outage_is_outlasted(self, relay, direct, operation, outage, monkeypatch, caplog):
        """Until the first warning and a second more: no second warning, and then the answer."""
        monkeypatch.setattr(module, "READ_TIMEOUT_S", 1)
        act, expected = OPERATIONS[operation]
        bucket = Bucket(direct.url, _options(relay.url, 60))
        outage(relay)
        with ThreadPoolExecutor(1) as pool:
            acting = pool.submit(act, bucket)
            _await(lambda: caplog.records)
            with pytest.raises(TimeoutError):
                acting.result(1)
            relay.heal()

            assert acting.result(60) == expected
        assert len(caplog.records) == 1
        assert caplog.messages[0].startswith(bucket.url.rsplit("/", 1)[0])
        assert "does not answer, asking again for up to" in caplog.messages[0]

    @pytest.mark.parametrize("operation", ["read", "exists, of a whole bucket", "create"])
    def test_after_its_patience_it_says_how_long_it_tried(self, relay, direct, operation):
        """The usual sentence, and that more than a moment was given."""
        relay.cut()
        with pytest.raises(UnreachableError, match=r"failed: Could not connect .*\(tried for [1-9]\d* s\)") as caught:
            OPERATIONS[operation][0](Bucket(direct.url, _options(relay.url, 1)))

        assert str(caught.value).startswith("s3://")

    def test_without_patience_nobody_waits(self, relay, direct, caplog):
        """As it was: the client's own few attempts, and the error."""
        relay.cut()
        with pytest.raises(StorageError, match=r"Could not connect .*store$"):
            Bucket(direct.url, _options(relay.url, 0)).read("a")

        assert caplog.records == []

    @pytest.mark.parametrize("url", ["s3://no-such-bucket/x", ""])
    def test_what_is_missing_is_asked_for_once(self, relay, direct, url, caplog):
        """A store that says "no" has answered."""
        bucket = Bucket(url or direct.url, _options(relay.url, 60))
        with pytest.raises(StorageError, match="does not exist"):
            bucket.read_range("absent", 0, 4)

        assert relay.turns == 1
        assert caplog.records == []

    def test_an_object_whose_creation_was_not_answered_is_ours(self, relay, direct):
        """The store did it, the answer was lost, and the second attempt finds an object: ours, as its bytes show."""
        bucket = Bucket(direct.url, _options(relay.url, 60))
        with _unanswered(relay, 1, lambda: bucket.create("new", b"mine"), lambda: direct.exists("new")) as created:
            relay.heal()

            assert created.result(60)

    def test_an_object_that_somebody_created_during_the_outage_is_theirs(self, relay, direct):
        """The same without a lost answer."""
        bucket = Bucket(direct.url, _options(relay.url, 60))
        direct.put("new", b"theirs")
        with _unanswered(relay, 0, lambda: bucket.create("new", b"mine"), lambda: relay.turns) as created:
            relay.heal()

            assert not created.result(60)

    def test_a_deletion_that_was_not_answered_is_done(self, relay, direct):
        """The second attempt finds nothing, and that is what was wanted; what was never there is still an error."""
        bucket = Bucket(direct.url, _options(relay.url, 60))
        with pytest.raises(StorageError, match="does not exist"):
            bucket.delete("never")
        asked = relay.turns
        with _unanswered(relay, 0, lambda: bucket.delete("a"), lambda: relay.turns > asked) as deleted:
            direct.delete("a")
            relay.heal()

            assert deleted.result(60) is None


@contextlib.contextmanager
def _unanswered(relay: Relay, after: int, act: Callable[[], object], done: Callable[[], object]) -> Iterator[Future[object]]:
    """Start ``act`` in a thread, lose its answers ``after`` some turns once it is ``done``, and leave the relay closed."""
    relay.mute(after)
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        _await(done)
        relay.cut()
        yield acting


def _await(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _options(url: str, patience_s: float) -> StoreOptions:
    return StoreOptions(endpoint_url=url, access_key="k", secret_key="s", region="us-east-1", patience_s=patience_s)


def test_an_unknown_protocol_is_said():
    """``s4://`` is a typing error, not a fault of ours."""
    with pytest.raises(StorageError, match="no store speaks s4://"):
        Bucket("s4://lab").read("a")


def test_a_secret_is_not_shown():
    """Options stand in logs and error messages."""
    assert "hunter2" not in repr(Bucket("s3://lab", StoreOptions(access_key="k", secret_key="hunter2")))
