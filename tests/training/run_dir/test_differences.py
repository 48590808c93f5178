"""A folder that holds another run says how it differs in sentences, and prints nothing of how runs are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.config.pretraining import apply_overrides
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.differences import describe_differences
from tests.training.published import images, publish


def _dataset(name: str, manifest: str = "m", preprocessing: str = "p") -> dict[str, str]:
    return {"name": name, "manifest": f"{name}-{manifest}", "preprocessing": preprocessing}


def _identity(*datasets: dict[str, str], name: str = "cdssl-p3d:tiny", changes: tuple[str, ...] = ()) -> dict[str, Any]:
    config = apply_overrides(recipe(name), changes).document()
    return {"config": config, "datasets": list(datasets), "weights": [1] * len(datasets)}


XR, CT = _dataset("xr"), _dataset("ct")


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (_identity(XR, CT), ""),
        (_identity(CT, XR), "the datasets are in another order: they were xr, ct and are ct, xr"),
        (_identity(XR), "the datasets were xr, ct and are xr"),
        (_identity(XR, _dataset("mr")), "the datasets were xr, ct and are xr, mr"),
        (
            _identity(XR, _dataset("ct", "n")),
            "the dataset ct has other content than the run's ct: the version that it began with was removed (crossdim gc), or "
            "the dataset was prepared again",
        ),
        (
            _identity(XR, _dataset("ct", "n", "q")),
            "the dataset ct was prepared with another recipe or other settings than the run's ct",
        ),
        (_identity(XR, CT) | {"weights": [1, 3]}, "the weights of xr, ct were 1:1 and are 1:3"),
        (
            _identity(XR, CT, changes=("seed=7", "compute.ema=0.9")),
            "compute.ema was null and is 0.9; seed was 0 and is 7",
        ),
        (_identity(XR, CT, name="maesil:tiny"), "it was started with a recipe of cdssl-p3d, and this recipe is of maesil"),
    ],
)
def test_each_difference_is_a_sentence(now: dict[str, Any], message: str) -> None:
    assert describe_differences(_identity(XR, CT), now) == message


def test_of_many_settings_five_are_named_and_the_rest_counted() -> None:
    changes = (
        "seed=7",
        "steps=3",
        "global_batch=9",
        "clip_norm=1",
        "optimizer.lr=1",
        "optimizer.momentum=0",
        "mixing.mode=ratio",
    )
    message = describe_differences(_identity(XR), _identity(XR, changes=changes)).split("; ")
    assert len(message) == 6
    assert message[-1] == "and 2 more settings"
    assert all(" was " in one and " and is " in one for one in message[:5])


def test_the_command_says_what_differs_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        publish(Bucket(str(tmp_path / name)), images(4, seed=ord(name)), name)
    line = ["pretrain", "--out", str(tmp_path / "run"), "--workers", "0", "--json"]
    new = ["--recipe", "cdssl-p3d:tiny", "--steps", "1", "--set", "global_batch=4"]
    assert main([*line, *new, "--data", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    assert main([*line, "--data", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: {tmp_path / 'run'} holds another run: the datasets were a and are b. Give what it was started with "
        "(without --recipe, --set and --steps its own settings are taken), or choose another --out\n"
    )
