"""Locations in messages: in one line, whatever characters they hold, and without passwords, tokens and signatures."""

from __future__ import annotations

import argparse
import contextlib
import logging
from pathlib import Path

import pytest

from crossdim import cli
from crossdim.foundation import entry_point
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import format_location, hide_secrets
from crossdim.foundation.storage_arguments import add_store_options, parse_store_options
from crossdim.storage_schema.errors import DocumentError, Problem
from crossdim.training.run_dir.status import Status

SECRET = "s3cr3tVALUE9"


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (f"ftp://user:{SECRET}@host/folder", "ftp://***@host/folder"),
        (f"sftp://{SECRET}@host/a@b", "sftp://***@host/a@b"),
        (f"ftp://user:{SECRET}@{SECRET} @host/x", "ftp://***@host/x"),
        (f"https://host/x.png?sig={SECRET}&y=1", "https://host/x.png?***"),
        (f"HTTPS://u:{SECRET}@host:8/?sig={SECRET}", "HTTPS://***@host:8/?***"),
        ("s3://lab/what?/x@y", "s3://lab/what?/x@y"),
        ("/data/a@b?c", "/data/a@b?c"),
        ("/tmp/x\nINFO all is well", "/tmp/x\\x0aINFO all is well"),
        ("s3://lab/a\r\u2028\u2029\x1b[2J\u202eb", "s3://lab/a\\x0d\\u2028\\u2029\\x1b[2J\\u202eb"),
    ],
)
def test_a_location_is_shown_in_one_line_without_its_secrets(location: str, shown: str) -> None:
    """Alone, and as a bucket says where it is."""
    assert format_location(location) == shown
    assert Bucket(location).where("") == shown


@pytest.mark.parametrize(
    "endpoint",
    [
        f"http://user:{SECRET}@127.0.0.1:1",
        f"http://{SECRET}@127.0.0.1:1",
        f"http://127.0.0.1:9/?sig={SECRET}",
        f"http://127.0.0.1:9/#{SECRET}",
        f"http://127.0.0.1:9/\n{SECRET}",
        f"http://user:{SECRET} x@127.0.0.1",
    ],
)
def test_an_endpoint_holds_no_credentials(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused, and not repeated; what to use instead is said."""
    line = ["status", "s3://lab/run", "--access-key", "a", "--secret-key", "b", "--endpoint-url", endpoint]
    assert cli.main(line) == 1
    told = capsys.readouterr()
    assert "--credentials-file" in told.err
    assert "AWS_ACCESS_KEY_ID" in told.err
    assert SECRET not in told.out + told.err


@pytest.mark.parametrize("endpoint", ["https://host:9000", "http://[::1]:9000/", "https://host/path"])
def test_an_address_is_taken_as_it_is(endpoint: str) -> None:
    """With a port and a path."""
    parser = argparse.ArgumentParser()
    add_store_options(parser)
    assert parse_store_options(parser.parse_args(["--endpoint-url", endpoint])).endpoint_url == endpoint


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fsspec's FTP client, never connected
@pytest.mark.parametrize(
    "line",
    [
        ["status", f"ftp://user:{SECRET}@127.0.0.1:1/run"],
        ["status", f"http:/user:{SECRET}@127.0.0.1:1/run"],
        ["status", f"nothing://user:{SECRET}@127.0.0.1:1/run"],
        ["status", f"http://user:{SECRET}@127.0.0.1:1/run?sig={SECRET}"],
        ["verify", f"ftp://user:{SECRET}@127.0.0.1:1/set"],
        ["evaluate", f"ftp://user:{SECRET}@127.0.0.1:1/run", "--data", f"ftp://user:{SECRET}@127.0.0.1:1/set"],
        ["prepare", f"ftp://u:{SECRET}@127.0.0.1:1/raw", "--recipe", "xray-pseudo3d:tiny", "--out", "ftp://u:x@127.0.0.1:1/o"],
        ["status", "run", f"ftp://user:{SECRET}@127.0.0.1:1/one-too-many"],
    ],
)
def test_no_verb_prints_the_password_of_a_location(
    line: list[str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in its sentence nor in a traceback."""
    monkeypatch.setattr("crossdim.pipelines.cli.PATIENCE_S", 0.0)
    with contextlib.suppress(SystemExit):  # of the last, as argparse ends
        assert cli.main(line) in (1, 2)
    told = capfd.readouterr()
    assert told.err
    assert SECRET not in told.out + told.err + caplog.text


def test_a_log_line_shows_no_password() -> None:
    """Whoever writes it."""
    record = logging.LogRecord("x", logging.INFO, "", 0, f"reading ftp://u:{SECRET}@h/a", (), None)
    assert entry_point._Formatter("%(message)s").format(record) == "reading ftp://***@h/a"
    assert hide_secrets("mail a@b or see http://h/x? and y@z") == "mail a@b or see http://h/x? and y@z"


def test_a_newline_in_a_location_ends_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run that is not there, and of an argument that names nothing."""
    forged = "\nINFO all is well"
    for line in (["status", f"{tmp_path}/x{forged}"], ["verify", f"{tmp_path}/x{forged}"], ["status", f"s3:/x{forged}"]):
        assert cli.main(line) in (1, 2)
        assert "\nINFO" not in capsys.readouterr().err


def test_stored_text_ends_no_line() -> None:
    """Of a damaged document, and of an event."""
    problem = Problem(loc="a\nerror: b", message="c\u2028d\ne")
    assert str(DocumentError("x", [problem])) == "x (1 problem)\n  a\\x0aerror: b: c\\u2028d\\x0ae"
    event = {"kind": "failed", "step": 1, "text": "a\nb\u2028c\x1b[2J"}
    shown = Status(run="/r\ns", state="failed", step=1, steps=2, last_word_s=1.0, events={"failed": 1}, notable_events=[event])
    assert str(shown).splitlines()[0].startswith("/r\\x0as: failed, step 1")
    assert "  failed at step 1: a b c\\x1b[2J" in str(shown).splitlines()
