"""Web addresses that carry a signature: files are read with it, and it is in no name, printed or published byte."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.pipelines.cli import main
from tests.pipelines.corpora import picture

SECRET = "s3cr3t/VALUE9"
QUERY = f"?X-Amz-Credential=AKIA%2F2026&X-Amz-Signature={SECRET}"


@pytest.fixture
def web(tmp_path) -> Iterator[str]:
    """A server of the files below ``web``, for requests that are signed; it lists folders as pages of links."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked, place = urlsplit(self.path), tmp_path / "web" / urlsplit(self.path).path.lstrip("/")
            if not asked.query.endswith(SECRET) or not place.exists():
                self.send_error(404 if asked.query.endswith(SECRET) else 403)
                return
            if place.is_dir():
                data = "".join(f'<a href="{path.name}{QUERY}">x</a>' for path in place.iterdir()).encode()
            else:
                data = place.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    for name, seed in (("one/a.png", 1), ("two/b.png", 2)):
        (tmp_path / "web" / name).parent.mkdir(parents=True)
        Image.fromarray(picture(seed)).save(tmp_path / "web" / name)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def prepare(out: Path, *sources: str) -> int:
    return main(["prepare", *sources, "--recipe", "xray-pseudo3d:tiny", "--out", str(out)])


def test_a_signed_file_is_published_under_its_name_without_the_signature(web, tmp_path, capfd):
    assert prepare(tmp_path / "one", f"{web}/one/a.png{QUERY}") == 0
    assert prepare(tmp_path / "two", f"{web}/one/a.png{QUERY}", f"{web}/two/b.png{QUERY}") == 0
    printed = capfd.readouterr()

    assert [row["source_uri"] for row in pq.read_table(tmp_path / "one" / "catalog").to_pylist()] == ["a.png"]
    assert {row["source_uri"] for row in pq.read_table(tmp_path / "two" / "catalog").to_pylist()} == {"a.png", "b.png"}
    stored = [path for out in ("one", "two") for path in (tmp_path / out).rglob("*") if path.is_file()]
    assert not any(word.encode() in path.read_bytes() for path in stored for word in ("VALUE9", "Signature"))
    assert not any("VALUE9" in str(path) for path in stored)
    assert "VALUE9" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("path", "said"),
    [("one", "lists a.png without its size"), (f"one/a.png{QUERY}x", "403"), ("none.png", "does not exist")],
)
def test_what_a_web_server_does_not_give_is_one_sentence_without_the_signature(web, tmp_path, capfd, path, said):
    address = f"{web}/{path}" if QUERY in path else f"{web}/{path}{QUERY}"
    assert prepare(tmp_path / "out", address, str(tmp_path / "web")) == 2
    printed = capfd.readouterr()

    assert said in printed.err.splitlines()[-1]
    assert "VALUE9" not in printed.out + printed.err
    assert "Traceback" not in printed.err
