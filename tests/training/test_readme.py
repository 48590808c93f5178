"""The README of training: its code runs as it stands, and its lists are those of the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from crossdim.training.api.dataset import open_dataset
from crossdim.training.backbones import serialise_encoder
from crossdim.training.data.views import normalise
from crossdim.training.recipes import recipe
from crossdim.training.run_dir import layout

PACKAGE = Path(__file__).parents[2] / "training"
TEXT = (PACKAGE / "README.md").read_text()


def test_the_encoder_loads_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who copies the snippet gets the features that training and evaluation see."""
    torch.manual_seed(0)
    method = recipe("cdssl-p3d:tiny").method.build().eval()
    spec = dataclasses.replace(method.encoder_spec, pseudo3d=dataclasses.asdict(Pseudo3D()))
    (tmp_path / "runs/b").mkdir(parents=True)
    (tmp_path / "runs/b" / layout.ENCODER).write_bytes(serialise_encoder(method.encoder.state_dict(), spec))
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["of_volumes"].shape == (2, spec.num_features)
    x = torch.from_numpy(normalise(unroll(names["image"].numpy(), Pseudo3D())))[None]
    expected = method.encoder(x).mean(dim=(2, 3, 4)).detach().numpy()
    assert np.allclose(names["of_image"].numpy(), expected, atol=1e-5)


def test_every_package_has_its_line() -> None:
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    table = TEXT.split("## Packages")[1].split("\n## ")[0]
    assert sorted(name for name in names if not name.startswith("__") and f"`{name}" not in table) == []


def test_the_listing_of_a_run_has_the_names_that_are_written() -> None:
    listing = TEXT.split("## The folder of a run")[1].split("\n## ")[0]
    state = f"{layout.CHECKPOINTS}/{layout.checkpoint_name(300)}/{layout.STATE}"
    names = (
        layout.CONFIG,
        state,
        layout.HASHES,
        layout.LATEST,
        layout.ENCODER,
        f"{layout.METRICS}/00000300.jsonl",
    )
    assert [name for name in (*names, layout.PROGRESS, layout.REPORT) if name not in listing] == []


def test_the_front_page_tells_which_split_is_opened_if_none_is_given() -> None:
    told = re.findall(r'split="(\w+)" by default', (PACKAGE.parent / "README.md").read_text())
    assert told == [inspect.signature(open_dataset).parameters["split"].default]
