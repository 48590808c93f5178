"""The command that is recorded can be typed again, and holds no secret."""

from __future__ import annotations

import shlex
import sys

import pytest

from crossdim.foundation.provenance import format_command, record_provenance


def test_a_command_can_be_typed_again() -> None:
    argv = ["/usr/bin/crossdim", "pretrain", "--data", "my data:2", "--set", 'optimizer={"lr": 1}']
    assert shlex.split(format_command(argv)) == ["crossdim", *argv[1:]]


@pytest.mark.parametrize(
    "argv",
    [
        ["pretrain", "--secret-key", "hunter2", "--out", "x"],
        ["pretrain", "--access-key=hunter2", "--out", "x"],
        ["pretrain", "--data", "s3://user:hunter2@lab/ct", "--out", "x"],
        ["verify", "https://lab.example/ct?token=hunter2"],
        ["verify", "s3://lab/ct", "--endpoint-url", "http://me:hunter2@store.local:9000"],
        ["verify", "s3://lab/ct", "--endpoint-url=https://store.local:9000/?key=hunter2"],
    ],
)
def test_no_secret_is_recorded(argv: list[str]) -> None:
    shown = format_command(["crossdim", *argv])
    assert "hunter2" not in shown
    assert "***" in shown
    assert ("--out x" in shown) == ("--out" in argv)


def test_a_file_of_credentials_is_named_and_not_read() -> None:
    line = ["verify", "s3://lab/ct", "--credentials-file", "/home/lab.ini"]
    assert format_command(["crossdim", *line]) == "crossdim verify s3://lab/ct --credentials-file /home/lab.ini"


def test_the_command_of_another_program_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/jupyter", "notebook"])
    found = record_provenance(["numpy", "no-such-package"])
    assert "command" not in found
    assert set(found["versions"]) == {"crossdim", "python", "numpy"}
    monkeypatch.setattr(sys, "argv", ["/lab/bin/crossdim", "pretrain"])
    assert record_provenance([])["command"] == "crossdim pretrain"
