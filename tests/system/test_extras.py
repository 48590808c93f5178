"""Extras that are not installed: help is there all the same, and a verb that needs one says which, in one sentence."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from crossdim import cli
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.extras import EXTRAS
from tests.training import published

ROOT = Path(cli.__file__).parents[1]
#: Runs a command as if packages were not installed.
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from crossdim import cli
sys.exit(cli.main(sys.argv[2:]))
"""
#: Everything that an extra installs, also codecs.
ALL = ",".join([*EXTRAS, "obstore", "jpeg_ls", "openjpeg", "rle", "pylibjpeg", "gdcm"])


def run_without(packages: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", WITHOUT, packages, *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published dataset."""
    folder = tmp_path_factory.mktemp("dataset")
    published.publish(Bucket(str(folder)), published.images(8), "flat")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small image."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    Image.new("L", (64, 64), 90).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("verb", cli.VERBS)
@pytest.mark.integration
def test_help_needs_no_extra(verb: str) -> None:
    done = run_without(ALL, verb, "--help")

    assert done.returncode == 0, done.stderr
    assert f"crossdim {verb}" in done.stdout


def lines_of(verb: str, folder: Path, dataset: Path) -> list[str]:
    """A command that would do something."""
    out = f"{folder}-out"
    train = ["--recipe", "cdssl-p3d:tiny", "--data", str(dataset), "--out", out]
    return {
        "prepare": ["prepare", str(folder), "--recipe", "xray-pseudo3d:tiny", "--out", out, "--no-local"],
        "verify": ["verify", str(dataset), "--no-local"],
        "pretrain": ["pretrain", *train, "--workers", "1"],
        "study": ["study", "four-arms", *train],
        "evaluate": ["evaluate", str(folder), "--data", str(dataset)],
    }[verb]


NEEDS = [
    ("prepare", "ray", "Ray", "ray"),
    ("prepare", "pandas", "Ray Data", "ray"),
    ("verify", "ray", "Ray", "ray"),
    ("pretrain", "ray", "Ray", "ray"),
    *((verb, "torch", "PyTorch", "train") for verb in ("pretrain", "study", "evaluate")),
    *((verb, "sklearn", "scikit-learn", "train") for verb in ("study", "evaluate")),
    *((verb, "scipy", "SciPy", "train") for verb in ("pretrain", "study", "evaluate")),
]


@pytest.mark.parametrize(("verb", "package", "name", "extra"), NEEDS)
@pytest.mark.integration
def test_a_verb_says_which_extra_it_needs(verb: str, package: str, name: str, extra: str, images: Path, dataset: Path) -> None:
    """One line, and the exit code of wrong use: trying again does not help."""
    done = run_without(package, *lines_of(verb, images, dataset))

    assert done.stderr.splitlines() == [f"error: {verb} needs {name}: pip install 'crossdim[{extra}]'"]
    assert done.returncode == 1


@pytest.mark.integration
def test_small_jobs_need_no_ray(tmp_path: Path) -> None:
    """They are done in the process of the command."""
    (tmp_path / "raw").mkdir()
    Image.effect_noise((64, 64), 50).save(tmp_path / "raw" / "a.png")
    out = str(tmp_path / "out")
    for line in (["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", "--out", out], ["verify", out]):
        done = run_without("ray", *line)
        assert done.returncode == 0, done.stderr


@pytest.mark.integration
def test_status_needs_no_extra(dataset: Path, images: Path) -> None:
    """A dataset, and a folder without a run: looked at without torch and Ray."""
    done = run_without(ALL, "status", str(dataset))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{dataset}: published, 8 samples")
    done = run_without(ALL, "status", str(images))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {images} holds no run")


@pytest.mark.integration
def test_a_store_says_which_extra_it_needs(images: Path) -> None:
    done = run_without("s3fs", "verify", "s3://lab/set")

    assert done.stderr == "error: s3://lab/set needs s3fs: pip install 'crossdim[s3]'\n"
    assert done.returncode == 1


def test_every_package_of_the_table_is_in_the_extra_that_is_named() -> None:
    """Directly, or as part of what the extra installs."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    through = {"grpc": "ray", "pandas": "ray", "pydantic": "ray", "aiobotocore": "s3fs", "botocore": "s3fs", "aiohttp": "s3fs"}
    named = {"sklearn": "scikit-learn", "skimage": "scikit-image", "mlflow": "mlflow-skinny"}
    for package, (_, extra) in EXTRAS.items():
        wanted = through.get(package, named.get(package, package))
        assert any(requirement.startswith((f"{wanted}>", f"{wanted}[")) for requirement in declared[extra]), package
