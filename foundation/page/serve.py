"""Serves one page to browsers of this machine, built anew for each request; an open page reloads itself when it has changed."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from crossdim.storage_schema.errors import CrossdimError, UsageError

#: A page that is open asks this often whether it has changed, in milliseconds.
POLL_MS = 5000
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
_RELOAD = """<script>
let shown; setInterval(async () => {
  const answer = await fetch("digest").catch(() => null);
  if (!answer || !answer.ok) return;  // the page stays until there is another
  const now = await answer.text();
  if (now !== shown && (shown || document.title === "crossdim: no page")) location.reload();
  shown = now;
}, %d);
</script>
"""


class PageServer(ThreadingHTTPServer):
    """A server on the loopback interface, where other machines do not reach it.

    Args:
        build: returns the page.
        port: to listen at; 0 takes a free one.

    Raises:
        UsageError: if the port is taken or not allowed.
    """

    daemon_threads = True

    def __init__(self, build: Callable[[], bytes], port: int) -> None:
        self.build = build
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UsageError(f"--serve cannot listen at port {port}: {error.strerror}; name another port, or none") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def handle(self) -> None:
        """Answer requests until the browser leaves, which it may do at any time."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def finish(self) -> None:
        """Send what is left, if anybody still reads it."""
        with contextlib.suppress(ConnectionError):
            super().finish()

    def do_HEAD(self) -> None:  # the name that the base class calls
        """Answer as for GET, without the page."""
        self.do_GET()

    def do_GET(self) -> None:  # the name that the base class calls
        """Answer with the page, or with its digest."""
        # A page of the web that resolves its own name to this machine would name itself here. The port may be a tunnel's.
        if not _LOOPBACK.fullmatch(self.headers.get("Host") or ""):
            self._answer(403, b"ask for 127.0.0.1 or localhost", "text/plain")
            return
        path = self.path.partition("?")[0]
        if path not in ("/", "/digest"):
            self._answer(404, b"there is one page: /", "text/plain")
            return
        try:
            code, page = 200, self.server.build()
        except CrossdimError as error:
            code, page = 503, f"<!doctype html><title>crossdim: no page</title><p>{escape(str(error))}</p>".encode()
        if path == "/digest":
            self._answer(code, hashlib.sha256(page).hexdigest().encode(), "text/plain")
        else:
            self._answer(code, page + (_RELOAD % POLL_MS).encode(), "text/html")

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no line for each request."""
