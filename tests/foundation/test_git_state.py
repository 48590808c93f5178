"""Git states, held against checkouts that git itself makes; whatever git does, something is recorded and nothing is raised."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from crossdim.foundation import git_state
from crossdim.foundation.git_state import NO_CHECKOUT, format_git_states, record_git_states

COMMIT = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "commit", "--quiet", "--all", "--message", "m")


def git(folder: Path, *arguments: str) -> str:
    line = ["git", "-C", str(folder), *arguments]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a checkout with one commit; the working directory is in no checkout."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return make_checkout(tmp_path / "code")


def make_checkout(folder: Path) -> Path:
    folder.mkdir()
    file = folder / "module.py"
    file.write_text("x = 1\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "module.py")
    git(folder, *COMMIT)
    return file


def test_commit_and_changes(code: Path) -> None:
    commit = git(code.parent, "rev-parse", "HEAD")
    assert record_git_states(code) == {"crossdim": {"commit": commit, "dirty": False}}
    (code.parent / "notes.txt").write_text("of nobody's concern")  # git does not know it
    assert record_git_states(code)["crossdim"]["dirty"] is False
    code.write_text("x = 2\n")
    assert record_git_states(code) == {"crossdim": {"commit": commit, "dirty": True}}
    git(code.parent, "add", "module.py")
    assert record_git_states(code)["crossdim"]["dirty"] is True
    git(code.parent, *COMMIT)
    after = git(code.parent, "rev-parse", "HEAD")
    assert after != commit
    assert record_git_states(code) == {"crossdim": {"commit": after, "dirty": False}}


def test_a_worktree_has_a_commit_of_its_own(code: Path, tmp_path: Path) -> None:
    git(code.parent, "worktree", "add", "--quiet", str(tmp_path / "other"))
    (tmp_path / "other/module.py").write_text("x = 3\n")
    git(tmp_path / "other", *COMMIT)
    expected = {"commit": git(tmp_path / "other", "rev-parse", "HEAD"), "dirty": False}
    assert record_git_states(tmp_path / "other/module.py") == {"crossdim": expected}
    assert expected["commit"] != git(code.parent, "rev-parse", "HEAD")


def test_the_working_directory_if_it_is_another_checkout(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_checkout(tmp_path / "own")
    (own.parent / "inner").mkdir()
    monkeypatch.chdir(own.parent / "inner")
    own.write_text("x = 4\n")
    found = record_git_states(code)
    assert found["working directory"] == {"commit": git(own.parent, "rev-parse", "HEAD"), "dirty": True}
    monkeypatch.chdir(code.parent)
    assert list(record_git_states(code)) == ["crossdim"]


def test_a_package_that_is_installed_into_a_checkout_is_not_of_it(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a virtual environment in the folder of somebody's project."""
    installed = code.parent / ".venv/module.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.chdir(code.parent)
    found = record_git_states(installed)
    assert found["crossdim"] == {"unknown": NO_CHECKOUT}
    assert found["working directory"]["commit"] == git(code.parent, "rev-parse", "HEAD")


def test_whatever_git_does_there_is_a_reason(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain.py").touch()
    assert record_git_states(tmp_path / "plain.py") == {"crossdim": {"unknown": NO_CHECKOUT}}
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "--quiet")
    (fresh / "module.py").touch()
    git(fresh, "add", "module.py")
    assert record_git_states(fresh / "module.py") == {"crossdim": {"unknown": "no commit yet"}}
    (tmp_path / "broken/.git").mkdir(parents=True)
    assert record_git_states(tmp_path / "broken/module.py") == {"crossdim": {"unknown": "git cannot read the checkout"}}
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setattr(git_state, "PATIENCE_S", 0.1)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert record_git_states(code) == {"crossdim": {"unknown": "git does not answer within 0 s"}}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record_git_states(code) == {"crossdim": {"unknown": "git is not found"}}


def test_variables_of_git_do_not_lead_elsewhere(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a hook of git, which may well start a run."""
    expected = record_git_states(code)
    other = make_checkout(tmp_path / "other")
    other.write_text("x = 5\n")
    monkeypatch.setenv("GIT_DIR", str(other.parent / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.parent))
    assert record_git_states(code) == expected


def test_a_working_directory_that_is_gone(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert list(record_git_states(code)) == ["crossdim"]


def test_states_as_text() -> None:
    states = {"crossdim": {"commit": "0123456789abcdef", "dirty": True}, "working directory": {"unknown": "no commit yet"}}
    assert format_git_states(states) == "crossdim 0123456789ab, files changed; working directory: no commit yet"
    assert format_git_states({"crossdim": {"commit": "0123456789abcdef", "dirty": False}}) == "crossdim 0123456789ab"
    for damaged in (None, [], "text", {"crossdim": 3}):
        assert format_git_states(damaged) == ""
