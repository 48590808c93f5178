"""A server before a real S3 server, which passes requests on and spoils one kind of them."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Headers = dict[str, str]


@dataclass
class Request:
    """What a client asks."""

    method: str
    path: str
    headers: Headers
    body: bytes


@dataclass
class Answer:
    """What the client gets."""

    status: int
    headers: Headers = field(default_factory=dict)
    body: bytes = b""


Pass = Callable[[Request], Answer]
#: Given a request and what passes it on, the answer.
Fault = Callable[[Request, Pass], Answer]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers), body)
        answer = self.server.fault(request, self._pass)  # type: ignore[attr-defined]
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        # A HEAD has the length of the body that it leaves out.
        length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(answer.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _pass(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)  # type: ignore[attr-defined]
        with contextlib.closing(connection):
            headers = request.headers | {"Content-Length": str(len(request.body))}
            connection.request(request.method, request.path, request.body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def faulty_store(endpoint: str, fault: Fault) -> Iterator[str]:
    """Serve the store at ``endpoint`` with a fault; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.behind, server.fault = urlsplit(endpoint).netloc, fault  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
