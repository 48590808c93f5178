"""A wrong endpoint, region, bucket or credential is named, with the option that mends it, within seconds and for every verb."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest

import crossdim.pipelines.cli
import crossdim.training.cli
from crossdim.foundation import reachability, store_options
from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.foundation.manifest_file import find_manifest, read_manifest
from crossdim.foundation.reachability import check_reachable
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.training.run_dir.run_config import read_run_config
from tests.ports import free_port

pytestmark = pytest.mark.integration


LIMIT_S = 10
#: For so long a server that hangs does not answer.
HANGS_S = 60
XML = "application/xml"


def error_xml(code: str, more: str = "") -> bytes:
    """An error as S3 words it: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
    return (
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>said</Message>{more}<RequestId>1</RequestId></Error>'.encode()
    )


class _Always(BaseHTTPRequestHandler):
    """Answers every request alike."""

    protocol_version = "HTTP/1.1"

    def _reply(self) -> None:
        status, headers, body = self.server.reply  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Serving = Callable[[int, dict[str, str], bytes], str]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Starts servers that answer every request alike; gives their addresses."""
    with contextlib.ExitStack() as stack:

        def start(status: int, headers: dict[str, str], body: bytes) -> str:
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Always)
            server.reply = (status, headers, body)  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


ANSWERS: dict[str, tuple[int, dict[str, str], bytes, str]] = {
    "web page": (200, {"Content-Type": "text/html"}, b"<!doctype html><p>Hello<br>", "no S3 store.*--endpoint-url"),
    "XHTML": (200, {"Content-Type": "text/html"}, b"<html><body/></html>", r"no S3 store \(a web page.*--endpoint-url"),
    "text": (200, {"Content-Type": "text/plain"}, b"ok", "no S3 store.*--endpoint-url"),
    "nothing": (200, {}, b"", "no S3 store.*--endpoint-url"),
    "JSON": (200, {"Content-Type": "application/json"}, b'{"a": 1}', "no S3 store.*--endpoint-url"),
    "page not found": (404, {"Content-Type": "text/html"}, b"<html>404</html>", r"no S3 store \(a web page, HTTP status 404.*"),
    "path not found": (404, {"Content-Type": "text/plain"}, b"404 page not found", r"no S3 store \(HTTP status 404\)"),
    "redirected": (301, {"Location": "https://else.where/"}, b"<html>moved</html>", r"no S3 store \(it sends on to https://else"),
    "http for https": (400, {}, b"Client sent an HTTP request to an HTTPS server.", "http for https"),
    "301": (
        301,
        {"Content-Type": XML, "x-amz-bucket-region": "eu-central-1"},
        error_xml("PermanentRedirect"),
        "--region eu-central-1",
    ),
    "400": (
        400,
        {"Content-Type": XML},
        error_xml("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
        "--region eu-west-1",
    ),
    "400 of MinIO": (400, {"x-amz-bucket-region": "here-1"}, b"", "in the region here-1, not in us-east-1; use --region here-1"),
    "no region": (400, {"Content-Type": XML}, error_xml("AuthorizationHeaderMalformed"), "another region.*--region"),
    "no bucket": (404, {"Content-Type": XML}, error_xml("NoSuchBucket"), "bucket does not exist there; check its name"),
    "access key": (403, {"Content-Type": XML}, error_xml("InvalidAccessKeyId"), "not know the access key.*--credentials-file"),
    "secret key": (
        403,
        {"Content-Type": XML},
        error_xml("SignatureDoesNotMatch"),
        "secret key does not belong.*--credentials-file",
    ),
    "expired": (400, {"Content-Type": XML}, error_xml("ExpiredToken"), "session.*has expired"),
    "clock": (403, {"Content-Type": XML}, error_xml("RequestTimeTooSkewed"), "clock"),
    "overloaded": (503, {"Content-Type": XML}, error_xml("SlowDown"), "overloaded or away"),
    "gateway": (502, {"Content-Type": "text/html"}, b"<html>bad gateway</html>", "overloaded or away"),
    "something new": (409, {"Content-Type": XML}, error_xml("NewInS3\x1b[2J".replace("\x1b", "&#x9b;")), "NewInS3"),
}
OPTIONS = {"access_key": "k", "secret_key": "hunter2", "region": "us-east-1"}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_server_answers_is_named_with_its_remedy(answer, serving):
    """At the first question, with the address that was asked and without the secret."""
    status, headers, body, said = ANSWERS[answer]
    url, start = serving(status, headers, body), time.monotonic()
    with pytest.raises(StorageError, match=said) as caught:
        check_reachable("lab", StoreOptions(endpoint_url=url, **OPTIONS))

    assert time.monotonic() - start < LIMIT_S
    assert url in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_denied_listing_is_no_reason_to_stop(serving):
    """Who may read objects may be forbidden to list them."""
    options = StoreOptions(endpoint_url=serving(403, {"Content-Type": XML}, error_xml("AccessDenied")), **OPTIONS)

    assert check_reachable("lab", options) == options


def test_the_region_that_a_store_names_is_used(serving):
    """Every client then has it, also those that do not follow a store's hint."""
    page = b"<?xml version='1.0'?><ListBucketResult><Name>lab</Name></ListBucketResult>"
    url = serving(200, {"Content-Type": XML, "x-amz-bucket-region": "eu-north-1"}, page)

    assert check_reachable("lab", StoreOptions(endpoint_url=url, access_key="k", secret_key="s")).region == "eu-north-1"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_where_nobody_answers_is_said_within_seconds(serving):
    """Refused, unknown, silent; a URL that is none, and https where http is spoken."""
    with silent() as url:
        for endpoint, said in {
            f"http://127.0.0.1:{free_port()}": "nothing listens there.*--endpoint-url",
            "http://no-such-host.invalid:9000": "no such host.*--endpoint-url",
            url: "does not answer.*--endpoint-url",
            "no url at all": "no url at all.*--endpoint-url",
            serving(200, {}, b"").replace("http:", "https:"): "--endpoint-url, http or https",
        }.items():
            start = time.monotonic()
            with pytest.raises(StorageError, match=said):
                check_reachable("lab", StoreOptions(endpoint_url=endpoint, **OPTIONS))
            assert time.monotonic() - start < LIMIT_S


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    """It has no time limit of its own."""
    monkeypatch.setattr(reachability, "DEADLINE_S", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2) or [])
    with pytest.raises(UnreachableError, match="does not answer within"):
        check_reachable("lab", StoreOptions(endpoint_url=f"http://store-{uuid4().hex}.local", **OPTIONS))


def test_no_credentials_and_a_wrong_profile_are_said(monkeypatch, tmp_path):
    """With where they may come from."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = StoreOptions(endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(StorageError, match=r"no credentials were found.*--credentials-file.*AWS_PROFILE.*--anonymous"):
        check_reachable("lab", options)
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(StorageError, match="AWS_PROFILE"):
        check_reachable("lab2", options)


def test_no_bucket_is_called_so():
    """Before anything is sent."""
    with pytest.raises(StorageError, match=r"no name of a bucket; write s3://BUCKET/FOLDER"):
        check_reachable("My Bucket", StoreOptions(endpoint_url="http://127.0.0.1:9", **OPTIONS))


VERBS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "prepare, reading": (
        crossdim.pipelines.cli.main,
        ["prepare", "s3://lab/raw", "--recipe", "xray-pseudo3d:tiny", "--out", "OUT"],
    ),
    "prepare, writing": (
        crossdim.pipelines.cli.main,
        ["prepare", "SRC", "--recipe", "xray-pseudo3d:tiny", "--out", "s3://lab/out"],
    ),
    "verify": (crossdim.pipelines.cli.main, ["verify", "s3://lab/set"]),
    "pretrain, reading": (
        crossdim.training.cli.main,
        ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", "s3://lab/set:2", "--out", "OUT"],
    ),
    "pretrain, writing": (
        crossdim.training.cli.main,
        ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", "SRC", "--out", "s3://lab/run"],
    ),
    "status": (crossdim.training.cli.main, ["status", "s3://lab/run"]),
    "evaluate": (crossdim.training.cli.main, ["evaluate", "s3://lab/run", "--data", "s3://lab/set"]),
    "study": (
        crossdim.training.cli.main,
        ["study", "four-arms", "--recipe", "cdssl-p3d:tiny", "--data", "s3://lab/set", "--out", "OUT"],
    ),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("answer", ["web page", "301", "access key", "no bucket"])
def test_every_verb_says_so_and_ends_with_code_2(verb, answer, serving, tmp_path, capsys):
    """Whether it reads there or writes there, before Ray is started."""
    status, headers, body, _ = ANSWERS[answer]
    main, arguments = VERBS[verb]
    (tmp_path / "src").mkdir()
    places = {"OUT": str(tmp_path / "out"), "SRC": str(tmp_path / "src")}
    store = ["--endpoint-url", serving(status, headers, body), "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    start = time.monotonic()

    assert main([*(places.get(argument, argument) for argument in arguments), *store]) == 2
    assert time.monotonic() - start < LIMIT_S
    said = capsys.readouterr().err
    assert said.startswith("error: s3://lab at http://127.0.0.1:")
    assert said.count("\n") == 1


@pytest.mark.parametrize("answer", ["page not found", "301", "400", "access key", "secret key", "no bucket", "clock"])
@pytest.mark.parametrize(
    "act", [lambda b: b.read("a"), lambda b: b.list_objects(), lambda b: b.put("a", b"1"), lambda b: b.delete("a")]
)
def test_later_too_what_waiting_cannot_mend_is_said_at_once(answer, act, serving):
    """Credentials expire and buckets go while a run waits with patience; only silence is waited for."""
    status, headers, body, _ = ANSWERS[answer]
    bucket = Bucket("s3://lab/x", StoreOptions(endpoint_url=serving(status, headers, body), patience_s=60, **OPTIONS))
    start = time.monotonic()
    with pytest.raises(StorageError) as caught:
        act(bucket)

    assert time.monotonic() - start < LIMIT_S
    assert not isinstance(caught.value, UnreachableError)
    assert str(caught.value).startswith("s3://lab/x")


def _listing(entry: str, more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    return f"<ListBucketResult><Name>lab</Name>{more}<Contents>{entry}</Contents></ListBucketResult>".encode()


@pytest.mark.parametrize("more", ["", "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"])
def test_an_object_without_etag_has_no_version(more, serving):
    """Not every store that speaks S3 has ETags, or says when an object was written."""
    url = serving(200, {"Content-Type": XML}, _listing(f"<Key>raw/a.png</Key><Size>3</Size>{more}"))
    found = Bucket("s3://lab/raw", StoreOptions(endpoint_url=url, **OPTIONS)).list_objects()
    assert [(one.path, one.size, one.version) for one in found] == [("a.png", 3, "")]


def test_bytes_are_read_without_an_etag(serving, monkeypatch):
    """Whole and in parts."""
    monkeypatch.setattr("crossdim.foundation.s3_objects.PART_BYTES", 2)
    url = serving(200, {}, b"12")
    bucket = Bucket("s3://lab", StoreOptions(endpoint_url=url, **OPTIONS))
    assert bucket.read("a") == b"12"
    monkeypatch.setattr("crossdim.foundation.s3_objects.PART_BYTES", 1)
    assert len(bucket.read("a")) >= 2  # this server answers a range with the whole


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_listing("<Key>raw/a.png</Key>"), "lists raw/a.png without its size"),
        (_listing("<Size>3</Size>"), "objects without their keys"),
        (_listing("<Key>raw/a</Key><Size>3</Size>", "<IsTruncated>true</IsTruncated>"), "without a token to go on from"),
    ],
)
def test_a_listing_that_lacks_what_is_needed_is_said(answer, said, serving):
    bucket = Bucket("s3://lab/raw", StoreOptions(endpoint_url=serving(200, {"Content-Type": XML}, answer), **OPTIONS))
    with pytest.raises(StorageError, match=said):
        bucket.list_objects()


class _Hanging(_Always):
    """Lists, and answers nothing else."""

    def _reply(self) -> None:
        if self.command == "GET" and "prefix" not in self.path:
            self.server.reply = 200, {"Content-Type": XML}, _listing("<Key>a</Key><Size>3</Size>")  # type: ignore[attr-defined]
            super()._reply()
        else:
            time.sleep(HANGS_S)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply


def test_a_store_that_hangs_after_its_first_answer_is_said_without_patience(monkeypatch, serving, capsys):
    """Before a run's work begins there is none: each of two attempts has its time, and s3fs makes no more of them."""
    assert store_options.IMPATIENT_READ_TIMEOUT_S * store_options.IMPATIENT_ATTEMPTS < 20
    monkeypatch.setattr("crossdim.foundation.store_options.IMPATIENT_READ_TIMEOUT_S", 2)
    monkeypatch.setitem(globals(), "_Always", _Hanging)
    url, start = serving(200, {}, b""), time.monotonic()
    assert (
        crossdim.training.cli.main(["status", "s3://lab/run", "--endpoint-url", url, "--access-key", "a", "--secret-key", "b"])
        == 2
    )
    assert time.monotonic() - start < HANGS_S / 2  # whatever the load: nobody waited for the store
    assert "error: s3://lab/run/config.json: looking for failed" in capsys.readouterr().err


def test_a_web_page_is_no_damaged_document(serving):
    """A gateway before the store may answer with one at any time."""
    page = b"\n<!DOCTYPE html><html>please sign in</html>"
    bucket = Bucket("s3://lab/run", StoreOptions(endpoint_url=serving(200, {"Content-Type": XML}, page), **OPTIONS))
    for read in (read_run_config, find_manifest, read_manifest):
        with pytest.raises(StorageError, match=r"s3://lab/run/\S+: the store answers with a web page.*--endpoint-url"):
            read(bucket)


class _ReadOnly(_Always):
    """Lets everybody read and nobody write."""

    def _reply(self) -> None:
        listing = b"<ListBucketResult><Name>lab</Name><KeyCount>0</KeyCount></ListBucketResult>"
        missing = 404, {"Content-Type": XML}, error_xml("NoSuchKey")
        replies = {"GET": (200, {"Content-Type": XML}, listing), "HEAD": missing}
        self.server.reply = replies.get(self.command, (403, {"Content-Type": XML}, error_xml("AccessDenied")))  # type: ignore[attr-defined]
        super()._reply()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply


def test_a_store_that_may_only_be_read_is_told_before_the_work(monkeypatch, serving, tmp_path, capsys):
    """Not after hours of scanning, with the first row."""
    monkeypatch.setattr(f"{__name__}._Always", _ReadOnly)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.png").write_bytes(b"1")
    store = ["--endpoint-url", serving(200, {}, b""), "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    line = ["prepare", str(tmp_path / "src"), "--recipe", "xray-pseudo3d:tiny", "--out", "s3://lab/out", *store]
    start = time.monotonic()

    assert crossdim.pipelines.cli.main(line) == 2
    assert time.monotonic() - start < LIMIT_S
    assert re.match(r"error: s3://lab/out: not allowed .*rights for writing", capsys.readouterr().err)


@pytest.mark.parametrize("there", ["a file", "a link to nothing"])
def test_a_folder_that_cannot_be_made_is_told_before_the_work(there, tmp_path):
    """And nothing is made where it can."""
    place = tmp_path / "place"
    place.write_bytes(b"") if there == "a file" else place.symlink_to("nowhere")
    for path in (place, place / "out"):
        with pytest.raises(StorageError, match=r"writing failed.*where a folder is to be"):
            Bucket(str(path)).check_writable()
    Bucket(str(tmp_path / "new" / "out")).check_writable()

    assert os.listdir(tmp_path) == ["place"]


def test_a_trial_of_writing_leaves_nothing(s3_endpoint, s3_client):
    """Not even what a listing of ours would leave out."""
    name = f"lab-{uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=name)
    Bucket(f"s3://{name}/out", StoreOptions(endpoint_url=s3_endpoint, **OPTIONS)).check_writable()

    assert "Contents" not in s3_client.list_objects_v2(Bucket=name)
