"""The README is held to the code: its commands are understood by the verbs, its Python runs, its demo runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossdim.cli import VERBS
from crossdim.completion_cli import build_parser as completion_parser
from crossdim.doctor_cli import build_parser as doctor_parser
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.config_parsing import parse_with_config
from crossdim.gc_cli import build_parser as gc_parser
from crossdim.pipelines.cli import build_parser as pipelines_parser
from crossdim.pipelines.recipes import RECIPES as PREPARE_RECIPES
from crossdim.recipe_cli import build_parser as recipes_parser
from crossdim.show_cli import build_parser as show_parser
from crossdim.status_cli import build_parser as status_parser
from crossdim.training.backbones import serialise_encoder
from crossdim.training.cli import build_parser as training_parser
from crossdim.training.data.views import normalise
from crossdim.training.recipes import RECIPES as PRETRAIN_RECIPES
from crossdim.training.recipes import recipe
from crossdim.training.studies import STUDIES
from tests.system.conftest import REPOSITORY
from tests.training.published import images, publish, superpatches

README = (REPOSITORY / "README.md").read_text()
PARSERS = {
    "pipelines.cli": pipelines_parser,
    "training.cli": training_parser,
    "recipe_cli": recipes_parser,
    "completion_cli": completion_parser,
    "status_cli": status_parser,
    "show_cli": show_parser,
    "doctor_cli": doctor_parser,
    "gc_cli": gc_parser,
}
KNOWN = {*PREPARE_RECIPES, *PRETRAIN_RECIPES}


def _lines(text: str) -> list[list[str]]:
    """Every command of ours in a text, without the way it is reached."""
    found = re.findall(rf"(?:crossdim|python -m (?:pipelines|training)) ((?:{'|'.join(VERBS)}) .*)", text)
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize("arguments", [*_lines(README), *_lines((REPOSITORY / "ray_cluster.yaml").read_text())], ids=" ".join)
def test_every_command_is_understood_by_its_verb(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [file] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    Path("run.yaml").write_text(file)
    build = PARSERS[VERBS[arguments[0]][0]]
    parsed = parse_with_config(build, arguments).arguments if "--config" in arguments else build().parse_args(arguments)
    assert getattr(parsed, "recipe", None) in {None, *KNOWN}


def test_every_study_is_shown_and_exists() -> None:
    assert {line[1] for line in _lines(README) if line[0] == "study"} == set(STUDIES)


def test_there_are_commands_of_every_verb() -> None:
    """An empty list of commands would be understood too."""
    assert {line[0] for line in _lines(README)} == set(VERBS)


def test_recipes_in_the_table_exist() -> None:
    table = re.findall(r"^\| `([a-z0-9-]+)` \| (prepare|pretrain) \|", README, re.MULTILINE)
    assert {name for name, _ in table} == {name for name in KNOWN if ":" not in name}


@pytest.mark.integration
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """From an empty folder; and its features are those that evaluation sees."""
    torch.manual_seed(0)
    method = recipe("cdssl-p3d:tiny").method.build()
    (tmp_path / "runs/first").mkdir(parents=True)
    (tmp_path / "runs/first/encoder.pt").write_bytes(serialise_encoder(method.encoder.state_dict(), method.encoder_spec))
    publish(Bucket(str(tmp_path / "data/xr")), images(9), "xr")
    cubes = superpatches(3)
    publish(Bucket(str(tmp_path / "data/ct")), cubes, "ct")
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = f"{block}\nimport torch\ntorch.save((features, batch['image'], state), 'found.pt')"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    features, last, state = torch.load(tmp_path / "found.pt", weights_only=True)
    x = torch.from_numpy(np.stack([normalise(cube.unit()) for cube in cubes]))
    assert torch.allclose(features, method.encoder.eval()(x).mean(dim=(2, 3, 4)), atol=1e-4)
    assert (last.shape[1:], state["position"]) == ((1, 16, 64, 64), 12)


def test_the_verbs_of_make_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for verb in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE)


@pytest.mark.system
@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_the_demo_ends_with_what_was_learned(tmp_path: Path) -> None:
    """What ``make demo`` runs once its environment is made, on less: killed and resumed on the way."""
    line = [sys.executable, "-m", "demo", "--quick", "--out", str(tmp_path / "demo")]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "killed with signal 9 after step 34" in done.stdout
    assert "trained from step 30 to 60" in done.stdout
    assert "quarantined" in done.stdout
    run = tmp_path / "demo" / "run"
    *_, labelled, unlabelled, _, page = done.stdout.rstrip().splitlines()
    for line, name in ((labelled, "from labels"), (unlabelled, "without labels")):
        assert re.match(rf"{name}: \d+ unseen radiographs, k-NN probe 0\.\d+ ± .*, untrained networks .*; linear probe ", line)
    assert page == f"Open {run}/report.html, or let crossdim show {run} --serve open it"
    for folder in (run, run.with_name("run-unlabelled")):
        assert "demo-radiographs-test" in (folder / "report.html").read_text()
