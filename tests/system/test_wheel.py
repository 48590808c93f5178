"""The wheel: one import name, nothing that is not the product, and every verb from a folder with packages of the same names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from crossdim.cli import VERBS
from demo.phantoms import write_phantoms
from tests.system.conftest import PATIENCE_S, REPOSITORY

#: Folders of the repository whose modules are the product.
PACKAGES = ("crossdim", "foundation", "pipelines", "storage_schema", "training")
#: Names that a lab may well have given to packages of its own.
OWN = ("benchmarks", "demo", "examples", "foundation", "pipelines", "storage_schema", "tests", "training")

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "golden")
    for name in {*PACKAGES, *OWN}:
        shutil.copytree(REPOSITORY / name, folder / "source" / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / "source")
    line = ["wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    _done([sys.executable, "-m", "pip", *line], folder / "source", dict(os.environ))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment that holds the wheel, and finds what it needs in the environment of the tests.

    A folder that a .pth file names is searched, but .pth files in it are not read: an editable crossdim there is not found.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    line = ["install", "--no-deps", "--quiet", "--no-warn-script-location", "--target", str(own), str(wheel)]
    _done([sys.executable, "-m", "pip", *line], folder, dict(os.environ))
    return str(folder / "bin/python")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with packages of a lab's own, which must not be imported in the place of ours."""
    for name in OWN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'raise ImportError("the {name} of the lab was imported")\n')
    return tmp_path


def _done(line: list[str], folder: Path, environment: dict[str, str], expect: int = 0) -> str:
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == expect, f"{' '.join(line)} ended with {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "PYTHONPATH"))}


def test_it_holds_one_import_name_and_the_product_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"crossdim"}
    found = {name.removeprefix("crossdim/") for name in names if name.startswith("crossdim/")}
    expected = {
        str(path.relative_to(REPOSITORY)).removeprefix("crossdim/")
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if (path.suffix in (".py", ".html", ".typed") or path.match("show/*.md")) and "__pycache__" not in path.parts
    }
    assert found == expected
    assert "py.typed" in found
    assert not {part for name in names for part in name.split("/")} & {"tests", "demo", "benchmarks", "examples", "deploy"}
    assert wheel.stat().st_size < 1_000_000


def test_every_page_of_help_is_there_beside_packages_of_the_same_names(python: str, lab: Path) -> None:
    """As a program, and as a module, which searches the current folder first."""
    program = next(Path(python).parents[1].glob("lib/*/site-packages/bin/crossdim"))
    assert "usage: crossdim VERB" in _done([python, str(program), "--help"], lab, _clean())
    for verb in VERBS:
        assert f"crossdim {verb}" in _done([python, "-m", "crossdim", verb, "--help"], lab, _clean())
    shown = _done([python, "-c", "import crossdim; print(crossdim.__file__, crossdim.open, crossdim.Encoder)"], lab, _clean())
    assert shown.startswith(str(Path(python).parents[1]))


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_every_verb_works_beside_packages_of_the_same_names(python: str, lab: Path) -> None:
    """Also in the processes that Ray starts: where its workers import crossdim from is asked of one."""

    def crossdim(*line: str) -> str:
        return _done([python, "-m", "crossdim", *line], lab, _clean() | {"OMP_NUM_THREADS": "1"})

    write_phantoms(lab / "raw", seed=0, images_per_label=4, volumes_per_label=0)
    crossdim("prepare", "raw/xray", "--recipe", "xray-pseudo3d:tiny", "--out", "xr", "--label", "folder", "--no-local")
    assert "12 samples" in crossdim("verify", "xr")
    train = ("pretrain", "--recipe", "cdssl-p3d:tiny", "--data", "xr", "--set", "global_batch=4", "--steps", "2")
    for workers in ("0", "1"):
        assert "trained from step 0 to 2" in crossdim(*train, "--workers", workers, "--out", f"run{workers}")
        assert "done" in crossdim("status", f"run{workers}")
    crossdim("evaluate", "run1", "--data", "xr", "--folds", "2")
    assert (lab / "run1/report.html").stat().st_size > 10_000
    asked = """
import ray
ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
@ray.remote
def places():
    import crossdim.pipelines.jobs.prepare, crossdim.training.launch.worker
    return [module.__file__ for module in (crossdim, crossdim.pipelines.jobs.prepare, crossdim.training.launch.worker)]
print(*ray.get(places.remote()), sep="\\n")
"""
    places = _done([python, "-c", asked], lab, _clean()).splitlines()
    assert len(places) == 3
    assert all(place.startswith(str(Path(python).parents[1])) for place in places), places
