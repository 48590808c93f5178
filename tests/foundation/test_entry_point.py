"""The entry point: every way a verb can end gives an exit code and at most one sentence."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys

import pytest

from crossdim.foundation import entry_point, storage_arguments
from crossdim.storage_schema.errors import (
    CrossdimError,
    DocumentError,
    GeometryError,
    Problem,
    RunError,
    SampleError,
    StorageError,
    UsageError,
)


def parser() -> argparse.ArgumentParser:
    built = entry_point.Parser(prog="crossdim try")
    built.add_argument("where")
    built.add_argument("--num", type=int, default=1)
    storage_arguments.add_store_options(built)
    built.set_defaults(verb=lambda arguments: entry_point.DONE)
    return built


def end_of(error: BaseException) -> int:
    def verb(_: argparse.Namespace) -> int:
        raise error

    return entry_point.run(verb, argparse.Namespace())


@pytest.mark.parametrize("code", [entry_point.DONE, entry_point.FAILED, entry_point.QUARANTINED])
def test_the_code_of_a_verb_is_the_code_of_the_process(code):
    """Scripts tell "done" from "done, but look at quarantine" by it."""
    assert entry_point.run(lambda _: code, argparse.Namespace()) == code


def test_where_credentials_were_found_is_not_printed(capfd):
    """Botocore logs it as information, on every start."""

    def verb(_: argparse.Namespace) -> int:
        for name in ("botocore.credentials", "aiobotocore.credentials"):
            logging.getLogger(name).info("Found credentials in shared credentials file: ~/.aws/credentials")
            logging.getLogger(name).warning("Attempting retrieval failed")
        return entry_point.DONE

    before = logging.getLogger().handlers[:]
    logging.getLogger().handlers.clear()  # those of pytest; basicConfig adds ours to none
    try:
        assert entry_point.run(verb, argparse.Namespace()) == entry_point.DONE
    finally:
        logging.getLogger().handlers[:] = before
    told = capfd.readouterr().err
    assert "Found credentials" not in told
    assert told.count("Attempting retrieval failed") == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such recipe"), 1),
        (StorageError("s3://lab does not exist"), 2),
        (GeometryError("does not tile"), 2),
        (RunError("no data"), 2),
        (SampleError("truncated", "ends early"), 2),
        (DocumentError("manifest.json", [Problem(loc="a", message="is missing")]), 2),
        (CrossdimError("anything else of ours"), 2),
    ],
)
def test_our_errors_are_one_sentence_without_a_traceback(error, code, capsys):
    """The user did something that can be put right; where in our code it was noticed is of no use to them."""
    assert end_of(error) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_error_that_ray_wrapped_is_still_ours(capsys):
    """Ray raises a RayTaskError around what a worker raised; its text would be a remote traceback."""
    wrapped = RuntimeError("ray::Worker.run() ... Traceback ...")
    wrapped.cause = StorageError("s3://lab is full")

    assert end_of(wrapped) == entry_point.FAILED
    assert capsys.readouterr().err == "error: s3://lab is full\n"


def test_a_fault_of_ours_shows_where_it_is(capsys):
    """Here the traceback is the message, and the user is told that it is not about their input."""
    assert end_of(ZeroDivisionError("division by zero")) == entry_point.FAILED
    shown = capsys.readouterr().err

    assert "Traceback" in shown
    assert "fault of crossdim" in shown


def test_an_interrupt_is_no_failure(capsys):
    """The code that a shell gives to Ctrl-C, and the promise that the same line resumes."""
    assert end_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("argv", [[], ["a", "--num", "x"], ["a", "--no-such-option"]])
def test_wrong_use_is_code_1_in_one_line(argv, capsys):
    """Argparse says 2 for it, which here means that the work failed."""
    with pytest.raises(SystemExit) as end:
        entry_point.main(parser, argv)
    shown = capsys.readouterr().err

    assert end.value.code == entry_point.WRONG_USE
    assert shown.startswith("error: ")
    assert shown.endswith("See crossdim try --help\n")
    assert shown.count("\n") == 1


def test_help_is_code_0(capsys):
    """Asking is not wrong use."""
    with pytest.raises(SystemExit) as end:
        entry_point.main(parser, ["--help"])
    assert end.value.code == entry_point.DONE
    assert "--endpoint-url" in capsys.readouterr().out


def test_store_options_reach_the_bucket():
    """No environment variable is needed to talk to a store."""
    arguments = parser().parse_args(
        ["s3://lab", "--endpoint-url", "http://h:9000", "--access-key", "k", "--secret-key", "s", "--region", "r"]
    )
    bucket = storage_arguments.build_bucket(arguments.where, arguments)
    found = bucket.options.filesystem_arguments(bucket.protocol)

    assert (bucket.url, found["endpoint_url"], found["key"], found["secret"]) == ("s3://lab", "http://h:9000", "k", "s")
    assert found["client_kwargs"] == {"region_name": "r"}
    assert found["anon"] is False


def test_a_relative_folder_is_made_absolute_before_it_travels(tmp_path, monkeypatch):
    """A worker elsewhere would look for it below its own folder."""
    monkeypatch.chdir(tmp_path)
    assert storage_arguments.build_bucket("runs/b", parser().parse_args(["x"])).url == str(tmp_path / "runs" / "b")
    assert storage_arguments.build_bucket("s3://lab/runs", parser().parse_args(["x"])).url == "s3://lab/runs"


def test_machines_get_one_json_object_and_people_a_sentence(capsys):
    """Either, never a mixture: a script pipes it into a JSON parser."""
    entry_point.print_result({"b": 1, "a": [2]}, "one sample", as_json=True)
    entry_point.print_result({"b": 1}, "one sample", as_json=False)
    first, second = capsys.readouterr().out.splitlines()

    assert json.loads(first) == {"a": [2], "b": 1}
    assert second == "one sample"


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "M\udcfcller", "gnp.\u202ecod", "\x9b31m", "肺"])
@pytest.mark.integration
def test_names_are_printed_escaped(name, tmp_path):
    """In a result, an error, a warning and in wrong use, whatever the terminal's encoding: names are chosen by others."""
    for argv in (["verify", str(tmp_path / name)], ["verify", "--no-such", name], ["prepare", name]):
        line = [sys.executable, "-m", "crossdim", *argv]
        ended = subprocess.run(line, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
        shown = (ended.stdout + ended.stderr).decode("ascii")

        assert shown.startswith("error: ")
        assert "Traceback" not in shown
        assert all(line.isprintable() for line in shown.splitlines())
