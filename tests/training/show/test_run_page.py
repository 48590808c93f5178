"""``crossdim show`` of a real run: from its folder alone, before and after its evaluation, without torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.git_state import format_git_states
from crossdim.training.run_dir.attempts import describe_attempt
from crossdim.training.run_dir.layout import EVALUATION, PICTURES
from crossdim.training.run_dir.run_config import read_run_config
from crossdim.training.show.facts import read_facts
from crossdim.training.show.findings import find_warnings
from crossdim.training.show.page import build_card
from tests.training.published import images, publish

pytestmark = pytest.mark.integration
SECRET = "hunter2-is-not-published"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a process of its own made, so that its command is recorded; and its evaluation."""
    root = tmp_path_factory.mktemp("lab")
    publish(Bucket(str(root / "data")), images(24), "flat")
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", str(root / "data"), "--out", str(root / "run"), "--workers", "0"]
    settings = ["--steps", "3", "--set", "global_batch=8", "--access-key", "k", "--secret-key", SECRET]
    done = subprocess.run([sys.executable, "-m", "crossdim", *line, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root


def test_before_an_evaluation_nothing_is_claimed(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(lab / "run")]) == 0
    text = capsys.readouterr().out
    assert "done, step 3 of 3" in text
    assert "It has not been evaluated." in text
    assert "cdssl-p3d:tiny (method cdssl-p3d), 8 samples a step, seed 0, fp32" in text
    assert "pseudo3d 24 (100%)" in text
    assert main(["show", str(lab / "run"), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<h1>It has not been evaluated." in page
    assert page.count("<svg") >= 5
    assert "global_batch</td><td" in page  # a setting that differs from the recipe


def test_a_run_links_to_the_page_of_its_data(lab: Path, tmp_path: Path) -> None:
    page, html = lab / "data" / "dataset.html", tmp_path / "page.html"
    assert main(["show", str(lab / "run"), "--html", str(html)]) == 0
    assert not re.search('<a href="(?!#)', html.read_text())  # there is no page
    page.write_text("<!doctype html><title>crossdim: flat</title>")
    assert main(["show", str(lab / "run"), "--html", str(html)]) == 0
    page.unlink()
    assert f'<a href="{page.resolve().as_uri()}">flat</a>' in html.read_text()


def test_provenance_is_recorded_without_secrets(lab: Path) -> None:
    provenance = read_run_config(Bucket(str(lab / "run"))).provenance
    assert provenance["recipe"] == "cdssl-p3d:tiny"
    assert {path for path, _, _ in provenance["changed"]} == {"steps", "global_batch"}
    assert provenance["command"].startswith("crossdim pretrain --recipe cdssl-p3d:tiny --data ")
    assert {"crossdim", "python", "torch"} <= set(provenance["versions"])
    assert "crossdim" in provenance["git"]
    for path in (lab / "run").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_commit_and_attempts_are_shown(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = read_facts(Bucket(str(lab / "run")), now=0.0)
    (attempt,) = facts.attempts
    assert (attempt["outcome"], attempt["provenance"]) == ("finished", facts.config.provenance)
    code = format_git_states(facts.config.provenance["git"])
    assert main(["show", str(lab / "run"), "--html", str(tmp_path / "page.html")]) == 0
    assert main(["show", str(lab / "run")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"  code: {code}" in shown
    assert f"  attempts: 1, the last {describe_attempt(attempt)}" in shown
    for text in ((tmp_path / "page.html").read_text(), build_card(facts).decode()):
        assert code in text
        assert describe_attempt(attempt) in text.replace("&#43;", "+")


def test_after_an_evaluation_the_verdict_comes_first_and_the_report_is_the_page(lab: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(lab / "run"), "--data", str(lab / "data"), "--baselines", "1", "--json"]) == 0
    run = Bucket(str(lab / "run"))
    facts = read_facts(run, now=0.0)
    assert facts.evaluation is not None
    assert {one.probe for one in facts.evaluation.results} == {"knn", "linear"}
    assert len(facts.galleries) == 2
    card = (lab / "run" / "card.md").read_text()
    assert f"| flat | {facts.evaluation.results[0].probe} | 24 of 24 inputs of unknown patients | 2 | " in card
    assert SECRET not in card
    report = (lab / "run" / "report.html").read_text()
    assert "untrained network" in report.partition("</h1>")[0].partition("<h1>")[2]
    shown = [*facts.galleries, *(gallery for several in facts.step_pictures.values() for gallery in several)]
    assert list(facts.step_pictures) == [0, 2, 3]
    assert report.count("data:image/png") == sum(len(pictures) for gallery in shown for _, pictures in gallery.rows)
    assert main(["show", str(lab / "run"), "--html", str(tmp_path / "page.html")]) == 0
    strip = [line for line in (tmp_path / "page.html").read_text().splitlines() if "data-lines" not in line]
    assert set(strip) <= set(report.splitlines())


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"galleries": 1}', b'{"galleries": [{"title": "x"}]}'])
def test_pictures_that_are_damaged_are_left_out(lab: Path, damage: bytes) -> None:
    run = Bucket(str(lab / "run"))
    run.put(PICTURES, damage)
    facts = read_facts(run, now=0.0)
    assert facts.galleries == []
    assert [problem.split()[0] for problem in facts.problems] == [run.where(PICTURES)]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"results": 3}', b'{"results": [{"trained": NaN}]}'])
def test_an_evaluation_that_is_damaged_is_told(lab: Path, tmp_path: Path, damage: bytes) -> None:
    shutil.copytree(lab / "run", tmp_path / "run")
    run = Bucket(str(tmp_path / "run"))
    run.put(EVALUATION, damage)
    facts = read_facts(run, now=0.0)
    assert any(EVALUATION in problem and "run crossdim evaluate again" in problem for problem in find_warnings(facts))


def test_pictures_come_from_the_page_alone(lab: Path) -> None:
    """Somebody who may write into the folder makes nobody's browser ask another server."""
    run = Bucket(str(lab / "run"))
    row = ["", [["caption", "http://attacker.example/x.png"]]]
    run.put(PICTURES, json.dumps({"galleries": [{"title": "t", "rows": [row]}]}).encode())
    assert read_facts(run, now=0.0).galleries == []


def test_no_torch_and_no_ray_are_imported(lab: Path) -> None:
    code = (
        "import sys; from crossdim.cli import main; "
        f"assert main(['show', {str(lab / 'run')!r}, '--html', {str(lab / 'x.html')!r}]) == 0; "
        "print([m for m in ('torch', 'ray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
