"""The examples run as they stand, on small datasets in the place of the demo's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdim.foundation.bucket import Bucket
from crossdim.training.backbones import serialise_encoder
from crossdim.training.recipes import recipe
from tests.training.published import images, publish, superpatches

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
#: Each takes some seconds, most of them to import torch; this is for a machine that is busy.
TIMEOUT_S = 240


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A folder with what ``make demo`` leaves, in its names."""
    folder = tmp_path / "demo-out"
    publish(Bucket(str(folder / "images")), images(12), "demo-images")
    publish(Bucket(str(folder / "volumes")), superpatches(24, side=32), "demo-volumes")
    torch.manual_seed(0)
    method = recipe("cdssl-p3d:tiny").method.build()
    Bucket(str(folder / "run-unlabelled")).put("encoder.pt", serialise_encoder(method.encoder.state_dict(), method.encoder_spec))
    return tmp_path


def run(folder: Path, *line: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *line], cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_training_learns_and_resumes(demo: Path) -> None:
    script = EXAMPLES / "own_training.py"
    first, second = run(demo, str(script)), run(demo, str(script))
    lines = re.findall(r"^(\d+) samples seen, loss ([0-9.]+)$", first + second, re.MULTILINE)
    assert [int(seen) for seen, _ in lines] == [24, 48, 72, 96, 120, 144]
    assert float(lines[-1][1]) < float(lines[0][1])
    code = [line for line in script.read_text().split('"""')[2].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(code) <= 25  # "in 25 lines", says the README


def test_an_encoder_is_transferred(demo: Path) -> None:
    shown = run(demo, str(EXAMPLES / "transfer_encoder.py"), "demo-out/run-unlabelled", "demo-out/volumes")
    scores = re.findall(r"^(linear probe|fine-tuned): +([0-9.]+) of 8 held-out samples right$", shown, re.MULTILINE)
    assert [name for name, _ in scores] == ["linear probe", "fine-tuned"]
    assert float(scores[0][1]) >= 0.75  # balls of two sizes are told apart even by an untrained network


def test_the_cells_of_the_notebook_run(demo: Path) -> None:
    """One after another in one namespace, as Jupyter runs them; no output is stored with them."""
    cells = json.loads((EXAMPLES / "explore.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    shown = run(demo, "-c", "\n".join(code) + "\nprint(picture.shape, crossdim.__name__)")
    assert "Loader of demo-images (1), demo-volumes (1)" in shown
    assert re.search(r"same label for \d+% of 24 volumes", shown)


def test_each_example_has_its_line() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert set(re.findall(r"^\| `([\w.]+)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)) == files
