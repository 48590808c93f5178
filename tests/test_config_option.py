"""``--config`` with the real verbs: a file does what the same command line does."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from crossdim import cli
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.recipes import RECIPES as PREPARATIONS
from crossdim.pipelines.recipes import resolve
from crossdim.training.config.pretraining import apply_overrides, read_config
from crossdim.training.recipes import RECIPES, recipe
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.study_subjects import STUDY_SUBJECTS
from tests.documentation.blocks import find_config_file
from tests.training.published import publish, superpatches

ROOT = Path(__file__).parents[1]
WITH_CONFIG = [verb for verb in cli.VERBS if verb not in ("recipes", "completion")]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _print(capsys: pytest.CaptureFixture[str], verb: str, *arguments: str) -> dict[str, object]:
    assert cli.main([verb, *arguments, "--print-config"]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("verb", WITH_CONFIG)
def test_every_verb_prints_its_configuration_and_does_nothing(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("options.yaml").write_text("region: there\n")
    document = _print(capsys, verb, "--config", "options.yaml")
    assert (document["region"], document["json"]) == ("there", False)
    assert [one.name for one in Path().iterdir()] == ["options.yaml"]


@pytest.mark.parametrize(("verb", "name"), [*(("prepare", n) for n in PREPARATIONS), *(("pretrain", n) for n in RECIPES)])
def test_the_yaml_of_a_recipe_is_read_as_the_recipe(verb: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", name, "--yaml"]) == 0
    Path("recipe.yaml").write_text(capsys.readouterr().out)
    assert _print(capsys, verb, "--config", "recipe.yaml")["set"] == _print(capsys, verb, "--recipe", name)["set"]


def test_the_file_of_the_documentation_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(find_config_file())
    document = _print(capsys, "pretrain", "--config", "run.yaml", "--out", "runs/c", "--set", "compute.precision=bf16")
    overrides = ["optimizer.lr=0.003", 'method.backbone={"kind": "swin3d"}', "compute.precision=bf16"]
    assert read_config(document["set"], "printed") == apply_overrides(recipe("cdssl-p3d:tiny"), overrides)


def test_settings_of_prepare_and_their_short_form(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text("recipe: ct-superpatches\nburned-in: refuse\nset: {resample: {spacing_mm: 2}}\n")
    found = _print(capsys, "prepare", "raw", "--config", "p.yaml")["set"]
    assert (found["read"]["burned_in"], found["resample"]["spacing_mm"]) == ("refuse", 2.0)
    assert _print(capsys, "prepare", "raw", "--config", "p.yaml", "--burned-in", "keep")["set"]["read"]["burned_in"] == "keep"


def test_wrong_options_and_settings_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.yaml").write_text("recipe: maesil:tiny\nsteps: 3\nworkrs: 2\nset: {optimizer.lrr: 1}\n")
    assert cli.main(["pretrain", "--data", "d", "--out", "o", "--config", "w.yaml"]) == 1
    shown = capsys.readouterr().err
    assert "w.yaml:3: unknown option 'workrs'; did you mean workers" in shown
    assert "w.yaml:4: optimizer.lrr: unknown setting 'lrr'; did you mean lr" in shown


def test_prepare_with_a_file_publishes_what_the_command_line_would(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "raw" / f"{number}.png")
    assert (
        cli.main(["prepare", "raw", "--recipe", "xray-pseudo3d:tiny", "--out", "a", "--name", "x", "--set", "fit.max_side=32"])
        == 0
    )
    Path("p.yaml").write_text("sources: raw\nrecipe: xray-pseudo3d:tiny\nname: x\nlocal: true\nset:\n  fit: {max_side: 32}\n")
    assert cli.main(["prepare", "--config", "p.yaml", "--out", "b"]) == 0
    one, other = (json.loads((tmp_path / folder / "manifest.json").read_text()) for folder in "ab")
    assert one["objects"] == other["objects"]
    assert resolve("xray-pseudo3d:tiny", ["fit.max_side=32"]).preprocessing() == one["preprocessing"]


@pytest.mark.integration
def test_pretrain_with_a_file_trains_what_it_says(tmp_path: Path) -> None:
    publish(Bucket(str(tmp_path / "ct")), superpatches(4), "ct")
    Path("run.yaml").write_text(
        "recipe: maesil:tiny\ndata: [ct]\nout: run\nworkers: 0\nsteps: 9\ncheckpoint-every: 30s\n"
        "set: {global_batch: 4, seed: 7}\n"
    )
    assert cli.main(["pretrain", "--config", "run.yaml", "--steps", "1"]) == 0
    config = read_config(json.loads((tmp_path / "run" / CONFIG).read_text())["identity"]["config"], "run")
    on_cpu = ["compute.precision=fp32", "compute.compiled=false"]  # what auto is there
    assert config == apply_overrides(recipe("maesil:tiny"), ["steps=1", "global_batch=4", "seed=7", *on_cpu])


def test_help_of_study_names_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["study", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}: {about}" in shown for name, about in STUDY_SUBJECTS.items())


def _parsers(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser"):
            yield node


def test_no_parser_takes_abbreviations() -> None:
    """``Parser`` refuses them, and the programs beside the package say so themselves."""
    folders = ("crossdim", "foundation", "pipelines", "training", "demo", "benchmarks", "examples")
    found = [(path, call) for folder in folders for path in (ROOT / folder).rglob("*.py") for call in _parsers(path)]
    assert len(found) > 3
    lacking = [str(path) for path, call in found if ast.unparse(call).count("allow_abbrev=False") != 1]
    assert lacking == []


@pytest.mark.parametrize(
    "line",
    [
        ["prepare", "raw", "--recipe", "xray-pseudo3d:tiny", "--out", "out"],
        ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", "a", "--out", "out", "--steps", "3"],
    ],
    ids=["prepare", "pretrain"],
)
def test_a_configuration_that_is_printed_can_be_read_again(line, tmp_path, capsys):
    """Options that may be repeated, and of which there is none, are printed as an empty list."""

    def values(text):
        return [one.partition("#")[0].rstrip() for one in text.splitlines()]

    assert cli.main([*line, "--print-config"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "run.yaml").write_text(first)
    assert cli.main([line[0], "--config", str(tmp_path / "run.yaml"), "--print-config"]) == 0
    assert values(capsys.readouterr().out) == values(first)
