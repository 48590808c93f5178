"""The README is held to the code: its Python runs, its demo runs. Its commands are read and typed by ``tests/documentation``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossdim.foundation.bucket import Bucket
from crossdim.training.backbones import serialise_encoder
from crossdim.training.data.views import normalise
from crossdim.training.recipes import recipe
from tests.system.conftest import REPOSITORY
from tests.training.published import images, publish, superpatches

README = (REPOSITORY / "README.md").read_text()


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
    assert "killed with signal 9 soon after step 34" in done.stdout
    assert "trained from step 30 to 60" in done.stdout
    assert "quarantined" in done.stdout
    run = tmp_path / "demo" / "run"
    *_, labelled, unlabelled, _, page = done.stdout.rstrip().splitlines()
    for line, name in ((labelled, "from labels"), (unlabelled, "without labels")):
        assert re.match(rf"{name}: \d+ unseen radiographs, k-NN probe 0\.\d+ ± .*, untrained networks .*; linear probe ", line)
    program = Path(sys.executable).with_name("crossdim")
    assert page == f"Open {run}/report.html, or let this show it in a browser: {program} show {run} --serve"
    for folder in (run, run.with_name("run-unlabelled")):
        assert "demo-radiographs-test" in (folder / "report.html").read_text()
