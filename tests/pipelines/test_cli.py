"""The command line: quick help, and wrong use told in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from crossdim.pipelines.cli import main

HEAVY = ("ray", "numpy", "pyarrow", "zarr", "nibabel", "SimpleITK", "pydicom", "webdataset", "torch")


@pytest.mark.parametrize("verb", ["prepare", "verify"])
def test_help_imports_nothing_heavy(verb):
    """Help must answer in a fraction of a second; what is not imported costs nothing."""
    code = f"""
import sys
from crossdim.pipelines.cli import main
try:
    main([{verb!r}, "--help"])
except SystemExit:
    pass
sys.exit(",".join(name for name in {HEAVY!r} if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "--ray-address" in done.stdout


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--recipe", "ct-superpatch"], "did you mean ct-superpatches"),
        (["--recipe", "ct-superpatches", "--set", "resample.spacing=2"], "did you mean spacing_mm"),
        (["--recipe", "ct-superpatches", "--set", "intensity.window_hu=[5, 1]"], "window_hu is (low, high)"),
        (["--recipe", "xray-pseudo3d", "--test-fraction", "1.5"], "--test-fraction"),
        (["--recipe", "xray-pseudo3d", "--name", "a/b"], "--name"),
        (["--recipe", "xray-pseudo3d", "--label-column", "sex"], "--labels FILE.csv"),
        (["--recipe", "xray-pseudo3d", "--labels", "x.csv"], "--label-column"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_1(more, sentence, tmp_path, capsys):
    assert main(["prepare", str(tmp_path), "--out", str(tmp_path / "out"), *more]) == 1
    assert sentence in capsys.readouterr().err


def test_a_number_of_tasks_is_positive(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(tmp_path), "--concurrency", "0"])

    assert caught.value.code == 1
    assert "from 1 up" in capsys.readouterr().err
