"""Commands name the programs of the environment that runs them by their path."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from ray.scripts.scripts import cli

from crossdim.cli import VERBS
from tests.system.conftest import REPOSITORY

#: Programs that an environment brings along, and what may follow their names in a command.
COMMANDS = {"ray": set(cli.commands), "crossdim": set(VERBS)}
FOLDERS = ("storage_schema", "foundation", "pipelines", "training", "demo", "benchmarks", "tests")


def bare(text: str) -> Iterator[int]:
    """Lines with a list or a tuple that is a command, and whose program the PATH would have to find."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.List | ast.Tuple):
            words = [word.value if isinstance(word, ast.Constant) else None for word in node.elts[:2]]
            if len(words) == 2 and isinstance(words[0], str) and words[1] in COMMANDS.get(words[0], ()):
                yield node.lineno


@pytest.mark.integration
def test_no_command_leaves_a_program_of_its_environment_to_the_path() -> None:
    """Where the environment is not activated there is none, or that of another version."""
    assert list(bare('a = ["ray", "start"]\nb = ("crossdim", "verify", x)\nc = ["ray", "torch"]\nd = [RAY, "start"]')) == [1, 2]
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(files) > 300
    found = {str(path.relative_to(REPOSITORY)): lines for path in files if (lines := list(bare(path.read_text())))}
    assert not found
