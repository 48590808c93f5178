"""Every recipe of a size for tests runs from data to report, and its encoder stands on its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.backbones import load_encoder
from crossdim.training.recipes import RECIPES, recipe

TINY = sorted(name for name in RECIPES if name.endswith(":tiny"))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.integration
def test_a_recipe_trains_and_is_evaluated(
    name: str, image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = recipe(name).method.kind
    data = [volume_data.url] if kind in ("ae", "vae", "vqvae") else [image_data.url, volume_data.url]
    run = str(tmp_path / "run")
    assert main(["pretrain", "--recipe", name, "--data", *data, "--out", run, "--workers", "0", "--steps", "1", "--json"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--data", *data, "--baselines", "1", "--folds", "2", "--split", "all", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {result["dataset"] for result in document["results"]} == {Path(url).name.rstrip("0123456789") for url in data}
    restores = kind in ("maesil", "ae", "vae", "vqvae")
    assert bool(document["restored"]) is restores
    page = (tmp_path / "run/report.html").read_text()
    assert ("-1000 to 1000 HU" in page) is restores
    assert ("LPIPS: not computed" in page) is restores
    _, spec = load_encoder(tmp_path / "run/encoder.pt")
    assert (spec.pseudo3d is None) is (kind in ("ae", "vae", "vqvae") or kind.startswith("cross-d"))
