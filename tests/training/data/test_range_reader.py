"""Range clients before a store that refuses, stumbles or answers half: what is asked again, and what is not."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.training.data.dataset import open_dataset, read_sample
from crossdim.training.data.range_reader import FsspecRangeReader, ObstoreRangeReader, RangeReader
from tests.ports import free_port
from tests.training.published import images, publish

pytestmark = pytest.mark.integration


DATA = b"0123456789"
LIMIT_S = 10
CUT_SHORT, FLIPPED = 0, 1


class _Stumbling(ThreadingHTTPServer):
    """Answers a range with the statuses in ``script`` and then rightly; CUT_SHORT is half an answer, FLIPPED has a wrong bit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = DATA
        self.script: list[int] = []
        self.requests = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Stumbling
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.requests += 1
        status = self.server.script.pop(0) if self.server.script else 206
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        data = self.server.data[first : last + 1] if status in (206, CUT_SHORT, FLIPPED) else b""
        if status == FLIPPED:
            data = data[:-30] + bytes([data[-30] ^ 4]) + data[-29:]
        self.send_response(206 if status in (CUT_SHORT, FLIPPED) else status)
        self.send_header("Content-Length", str(len(data)))
        if data:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.server.data)}")
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.close_connection = status == CUT_SHORT
        self.wfile.write(data[: len(data) // 2] if status == CUT_SHORT else data)


@pytest.fixture
def store() -> Iterator[_Stumbling]:
    with _Stumbling() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


Client = type[FsspecRangeReader] | type[ObstoreRangeReader]


@pytest.fixture(params=[FsspecRangeReader, ObstoreRangeReader])
def client(request: pytest.FixtureRequest) -> Client:
    chosen: Client = request.param
    return chosen


@pytest.fixture
def reader(store: _Stumbling, client: Client) -> RangeReader:
    return _opened(client, f"http://127.0.0.1:{store.server_port}")


def _opened(client: Client, endpoint_url: str) -> RangeReader:
    options = StoreOptions(endpoint_url=endpoint_url, access_key="k", secret_key="s", region="us-east-1", patience_s=60)
    return client(Bucket("s3://lab/folder", options))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, CUT_SHORT])
def test_a_store_that_stumbles_is_asked_again(status: int, store: _Stumbling, reader: RangeReader) -> None:
    store.script = [status, status]
    assert reader.get("a", 2, 4) == b"2345"
    assert store.requests == 3


def test_a_range_that_came_with_a_wrong_bit_is_asked_for_once_more(
    store: _Stumbling, reader: RangeReader, tmp_path: Path
) -> None:
    """HTTP has no checksum of its own: both clients hand over what came, and only ours tells."""
    bucket = Bucket(str(tmp_path))
    publish(bucket, images(2), "xr")
    dataset, messages = open_dataset(bucket), list[str]()
    store.data = bucket.read(str(dataset.row(0)["object"]))
    right = read_sample(dataset, 0, reader).array
    store.script, store.requests = [FLIPPED], 0
    assert np.array_equal(read_sample(dataset, 0, reader, messages.append).array, right)
    assert (store.requests, len(messages)) == (2, 1)
    store.script, store.requests = [FLIPPED, FLIPPED], 0
    with pytest.raises(StorageError, match="read twice"):
        read_sample(dataset, 0, reader, messages.append)
    assert (store.requests, len(messages)) == (2, 1)


@pytest.mark.parametrize(
    ("status", "said"), [(400, "failed"), (401, "failed"), (403, "not allowed|privileges"), (404, "exist|not found")]
)
def test_a_refusal_is_an_answer(status: int, said: str, store: _Stumbling, reader: RangeReader) -> None:
    """Obstore does not tell a wrong question from a silent store, so then the other client is asked, once."""
    store.script = [status] * 100
    with pytest.raises(StorageError, match=said):
        reader.get("a", 2, 4)
    assert store.requests == (2 if isinstance(reader, ObstoreRangeReader) and status == 400 else 1)


def test_a_range_beyond_the_end_is_an_answer(store: _Stumbling, reader: RangeReader) -> None:
    """A catalog that points past its object is broken, and stays so."""
    store.script = [416] * 100
    with pytest.raises(StorageError, match=r"s3://lab/folder/a: reading failed"):
        reader.get("a", 90, 4)
    assert store.requests <= 2


@pytest.mark.parametrize("answer", ["none", "refused", 503])
def test_who_has_no_patience_has_a_sentence_within_seconds(answer: str | int, store: _Stumbling) -> None:
    """Left to itself obstore asks for three minutes, and an evaluation would stand still meanwhile."""
    store.script = [503] * 1000
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = {"none": silent.getsockname()[1], "refused": free_port()}.get(str(answer), store.server_port)
        options = StoreOptions(endpoint_url=f"http://127.0.0.1:{port}", access_key="k", secret_key="s", region="us-east-1")
        reader, began = ObstoreRangeReader(Bucket("s3://lab/folder", options)), time.monotonic()
        with pytest.raises(StorageError, match=r"^s3://lab/folder/a: reading 4 bytes at 2 failed: .*; check endpoint") as caught:
            reader.get("a", 2, 4)
    assert time.monotonic() - began < LIMIT_S
    assert len(str(caught.value).splitlines()) == 1


def test_a_certificate_that_is_not_trusted_is_not_waited_for(store: _Stumbling, client: Client, tmp_path: Path) -> None:
    """It does not become trusted by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path / "own.pem"))
    store.socket = context.wrap_socket(store.socket, server_side=True)
    with pytest.raises(StorageError, match="certificate verify failed") as caught:
        _opened(client, f"https://localhost:{store.server_port}").get("a", 2, 4)
    assert not isinstance(caught.value, UnreachableError)


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_forked_process_reads_what_its_parent_read(opened: str, store: _Stumbling, client: Client) -> None:
    """A loader that forks its workers: of threads that the parent's client needs, the child has none.

    What the child drops of its parent's client must not take the parent's connections along: its next read waited 30 s.
    """
    endpoint = f"http://127.0.0.1:{store.server_port}"
    reader = _opened(client, endpoint)
    assert reader.get("a", 2, 4) == b"2345"
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a handler of Python's is not called while a client waits for a lock
            signal.alarm(20)
            mine = reader if opened == "before" else _opened(client, endpoint)
            status = 0 if mine.get("a", 3, 4) == b"3456" else 2
            del mine, reader
            gc.collect()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    began = time.monotonic()
    assert reader.get("a", 2, 4) == b"2345"
    assert time.monotonic() - began < LIMIT_S


def _self_signed(path: Path) -> Path:
    """A key and its certificate for localhost, signed by nobody else."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return path
