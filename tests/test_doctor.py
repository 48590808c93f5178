"""``crossdim doctor``: one line for each check, exit code 2 for a failure, and nothing raised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crossdim import cli, doctor_cli
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.checks import CheckResult, Level
from crossdim.storage_schema.errors import RunError

ROOT = Path(__file__).parents[1]
FINE = CheckResult(check="one", found="fine")
WARNING = CheckResult(check="other", level=Level.WARNING, found="slow", remedy="make it fast")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Has the verb run these checks and no others."""
    return lambda *checks: monkeypatch.setattr(doctor_cli, "_list_checks", lambda _: list(checks))


def test_a_line_for_each_check_and_its_remedy(only, capsys: pytest.CaptureFixture[str]) -> None:
    only(("one", lambda: [FINE, WARNING]))
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       one    fine",
        "warning  other  slow. Remedy: make it fast",
        "",
        "2 checks; failures: 0, warnings: 1",
    ]


def test_a_failure_is_exit_code_2_and_stands_in_the_document(only, capsys: pytest.CaptureFixture[str]) -> None:
    only(("one", lambda: [FINE]), ("broken", lambda: [][0]))
    assert cli.main(["doctor", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["failures"], document["warnings"]) == (1, 0)
    assert document["checks"][0] == {"check": "one", "level": "ok", "found": "fine", "remedy": ""}
    assert document["checks"][1]["found"] == "IndexError: list index out of range"


def test_store_options_that_contradict_each_other_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "s3://lab", "--access-key", "k"]) == 1
    assert "--secret-key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("auto", "name the HOST:PORT of a cluster, or start one here: ray start --head"),
        ("lab head:6379", "ask the cluster itself: ray status --address 'lab head:6379'"),
    ],
)
def test_a_cluster_that_cannot_be_joined(
    address: str, remedy: str, only, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: str) -> list[CheckResult]:
        raise RunError("no cluster answers")

    only(("one", lambda: [FINE]))
    monkeypatch.setattr(doctor_cli, "_check_ray", refuse)
    assert cli.main(["doctor", "--ray-address", address, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["checks"][-1]["remedy"] == remedy


def test_the_cluster_that_other_verbs_would_join_is_asked(only, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def check(address: str) -> list[CheckResult]:
        asked.append(address)
        return [FINE]

    only(("one", lambda: [FINE]))
    monkeypatch.setattr(doctor_cli, "_check_ray", check)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert cli.main(["doctor"]) == 0
    assert cli.main(["doctor", "--ray-address", "other:6379"]) == 0
    assert asked == ["head:6379", "other:6379"]


@pytest.mark.integration
def test_this_installation_with_a_real_store(s3_bucket: Bucket, s3_client, tmp_path: Path) -> None:
    """Options from a file; every check is there, none fails, and neither torch nor Ray is loaded by the verb."""
    options = s3_bucket.options
    (tmp_path / "lab.ini").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    (tmp_path / "lab.ini").chmod(0o600)
    file = f"location: {s3_bucket.url}\nendpoint-url: {options.endpoint_url}\ncredentials-file: {tmp_path}/lab.ini\njson: true\n"
    (tmp_path / "options.yaml").write_text(file)
    script = (
        "import sys; from crossdim import cli; print(cli.main(sys.argv[1:]), *(one in sys.modules for one in ('torch', 'ray')))"
    )
    line = [sys.executable, "-c", script, "doctor", "--config", str(tmp_path / "options.yaml")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    text, end = done.stdout.splitlines()
    assert (end, done.stderr) == ("0 False False", "")
    found = {one["check"]: one["level"] for one in json.loads(text)["checks"]}
    assert found.keys() >= {"Python", "packages", "extra s3", "PyTorch", "GPU", "DICOM RLE", "shared memory", "open files"}
    assert found.keys() >= {"temporary folder", "Ray's folder", "storage clock", "storage create once", "storage delete"}
    assert "failure" not in found.values()
    assert "Contents" not in s3_client.list_objects_v2(Bucket=s3_bucket.url.removeprefix("s3://"))


@pytest.mark.integration
@pytest.mark.parametrize("location", ["s3://lab", "nonsense://lab", "/proc/1/x", "\x1b[2J"])
def test_whatever_is_asked_for_there_is_an_answer(location: str, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "crossdim", "doctor", location, "--endpoint-url", "http://127.0.0.1:9", "--json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=None)
    document = json.loads(done.stdout)
    failed = [one for one in document["checks"] if one["level"] == "failure"]
    assert (done.returncode, bool(failed)) == ((0, False) if location == "\x1b[2J" else (2, True))
    assert all(one["check"].startswith("storage ") for one in failed)
    assert "Traceback" not in done.stderr
