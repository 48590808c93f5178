"""Every command line that people read, and why some are not typed by ``test_command_lines``."""

from __future__ import annotations

import re

from tests.documentation import blocks
from tests.documentation.blocks import ROOT

_PACKAGES = ("benchmarks", "deploy", "examples", "foundation", "pipelines", "storage_schema", "training")
#: What holds blocks: the pages, what lies at the top, and the READMEs of packages.
TEXTS = (*blocks.TEXTS, *(ROOT / package / "README.md" for package in _PACKAGES))
#: Languages of blocks that hold no commands to type; a page of recordings holds what was typed.
SILENT = ("text", "yaml", "console", "json")
PROGRAMS_TYPED = ("crossdim", "ray", "make", "pip", "python", "kubectl", "sbatch", "export")
#: Beginnings of lines that are not typed, and what is done instead.
NOT_TYPED = {
    "pip install": "fetches packages; test_wheel builds and installs the wheel, test_extras leaves packages out",
    "make ": "make test would run itself; test_readme runs what make demo runs, test_site what make docs does, CI the others",
    "ray up": "starts paid machines; test_cluster_file holds the file against Ray's own validator and scheduler",
    "ray down": "ends what ray up started",
    "ray dashboard": "opens a tunnel to the head of ray up; the cluster of the test listens on this machine",
    "export RAY_AUTH_MODE": "names that tunnel; the cluster of the test has an address and a token of its own",
    "kubectl": "needs Kubernetes; test_deploy holds the files against KubeRay's schema",
    "sbatch": "needs Slurm; test_slurm runs the script between stand-ins of Slurm's programs",
    "python -m benchmarks.": "measures for minutes; test_pages says that the modules exist",
    "crossdim prepare SRC": "a synopsis with words in the place of values",
    "crossdim verify DATASET": "a synopsis with words in the place of values",
}


def find_all_blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every block of a text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def holds_commands(language: str, block: str) -> bool:
    """Whether a block is one of command lines: by its language, or without one by how it begins."""
    return language == "sh" or (not language and block.startswith(tuple(f"{name} " for name in PROGRAMS_TYPED)))


def find_command_lines(text: str) -> list[str]:
    """Every command line of the blocks of a text, continued lines put together, comments left out."""
    blocks = [block for language, block in find_all_blocks(text) if holds_commands(language, block)]
    lines = re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()
    return [re.sub(r"\s+# .*$", "", line) for line in lines if line.strip() and not line.startswith("#")]


def is_typed(line: str) -> bool:
    """Whether a line is typed by the test, and not named with a reason."""
    return not line.startswith(tuple(NOT_TYPED))
