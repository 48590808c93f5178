"""``crossdim recipes``: the lists are those of the code, and every setting has a meaning."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest
import torch
import yaml

from crossdim import cli
from crossdim.foundation.setting_meanings import read_meanings
from crossdim.pipelines import recipe_names as of_prepare
from crossdim.pipelines.recipes import RECIPES as PREPARATIONS
from crossdim.training import recipe_names as of_pretrain
from crossdim.training.config.pretraining import FAMILIES, Pretraining, read_config
from crossdim.training.evaluation.probes import classifiers
from crossdim.training.evaluation_tasks import EVALUATION_TASKS
from crossdim.training.recipes import RECIPES
from crossdim.training.studies import STUDIES
from crossdim.training.study_subjects import STUDY_SUBJECTS


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["recipes", *arguments]) == 0
    return capsys.readouterr().out


def _reach(kind: Any, seen: set[type]) -> None:
    if kind in FAMILIES:
        for member in FAMILIES[kind].values():
            _reach(member, seen)
    elif isinstance(kind, type) and is_dataclass(kind):
        if kind not in seen:
            seen.add(kind)
            for field in fields(kind):
                _reach(get_type_hints(kind)[field.name], seen)
    else:
        for each in get_args(kind):
            _reach(each, seen)


def test_every_setting_has_a_meaning() -> None:
    """Also those of methods, backbones and optimizers that no recipe of ours uses."""
    kinds: set[type] = set()
    for kind in (Pretraining, *(type(build()) for build in PREPARATIONS.values())):
        _reach(kind, kinds)
    assert len(kinds) > 35
    lacking = [f"{kind.__name__}.{one.name}" for kind in kinds for one in fields(kind) if one.name not in read_meanings(kind)]
    assert lacking == []
    texts = [(kind.__name__, name, one.text) for kind in kinds for name, one in read_meanings(kind).items()]
    assert [text for text in texts if len(text[2].split()) < 2] == []


@pytest.mark.parametrize("name", RECIPES)
def test_the_line_of_a_recipe_of_pretrain_is_that_of_its_settings_and_network(name: str) -> None:
    config = RECIPES[name]()
    with torch.device("meta"):
        network = config.method.with_labels(("two", "classes")).build()
    line = of_pretrain.RecipeSummary(
        steps=config.steps,
        batch=config.global_batch,
        optimizer=config.optimizer.kind,
        lr=config.optimizer.lr,
        precision=config.compute.precision,
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
    )
    assert of_pretrain.RECIPE_SUMMARIES[name] == line


@pytest.mark.parametrize("name", PREPARATIONS)
def test_the_line_of_a_recipe_of_prepare_is_that_of_its_settings(name: str) -> None:
    recipe, line = PREPARATIONS[name](), of_prepare.RECIPE_SUMMARIES[name]
    assert all(one.lower() in line.takes.lower() for one in recipe.formats)
    assert line.makes == str(recipe.presentation)
    said = [
        int(word)
        for word in line.how.replace("..", " ").replace(",", " ").replace(";", " ").split()
        if word.lstrip("-").isdigit()
    ]
    if line.makes == "pseudo3d":
        assert said == [recipe.fit.max_side, recipe.pseudo3d.window, recipe.pseudo3d.stride]
    else:
        assert (said[0], said[-1]) == (recipe.resample.spacing_mm, recipe.superpatch.side)
        assert said[1:-1] in ([], list(recipe.intensity.window_hu))
        assert line.how.startswith("CT" if recipe.modalities else "every modality")


def test_studies_and_tasks_are_those_of_the_code() -> None:
    assert list(STUDY_SUBJECTS) == list(STUDIES)
    assert {*classifiers(100), "reconstruction"} == set(EVALUATION_TASKS)


def test_the_list_names_everything_and_imports_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from crossdim import cli; cli.main(['recipes']); print({'torch', 'ray', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    document = json.loads(run(capsys, "--json"))
    named = {verb: [one["name"] for one in rows] for verb, rows in document.items()}
    assert named == {
        "prepare": list(PREPARATIONS),
        "pretrain": list(RECIPES),
        "study": list(STUDIES),
        "evaluate": list(EVALUATION_TASKS),
    }
    assert all(f"  {name} " in done.stdout for names in named.values() for name in names)


@pytest.mark.parametrize("name", ["xray-pseudo3d:tiny", "cdssl-p3d:tiny"])
def test_a_recipe_is_shown_with_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, name)
    listed = json.loads(run(capsys, name, "--json"))["settings"]
    assert len(listed) > 15
    assert all(f"\n{one['path']} " in text for one in listed)
    assert all(one["meaning"] for one in listed)
    assert ("method.flat.global_side" in text) == (name == "cdssl-p3d:tiny")


def test_the_yaml_of_a_recipe_is_its_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    for name in RECIPES:
        document = yaml.safe_load(run(capsys, name, "--yaml"))
        assert document["recipe"] == name
        assert read_config(document["set"], "yaml") == RECIPES[name]()


@pytest.mark.parametrize("name", ["ct-superpatches", "maesil:tiny", "cross-d:tiny"])
def test_the_schema_of_a_recipe_accepts_its_yaml(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(run(capsys, name, "--schema"))
    document = yaml.safe_load(run(capsys, name, "--yaml"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    document["set"]["unheard"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_only_differing_settings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capsys, "cdssl-p3d", "--diff", "cdssl-p3d:tiny", "--json"))
    differing = {one["path"]: (one["cdssl-p3d"], one["cdssl-p3d:tiny"]) for one in document["differences"]}
    assert differing["steps"] == (74_760, 60)
    assert "optimizer.momentum" not in differing
    assert "have the same settings" in run(capsys, "cdssl-p3d", "--diff", "cdssl-p3d:paper")
    assert "solid" not in run(capsys, "maesil:small", "--diff", "maesil-crossdim:small")
    assert cli.main(["recipes", "cdssl-p3d", "--diff", "ct-superpatches"]) == 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("package", "name", "verb", "setting"),
    [
        ("training", "net_lab.recipes:slim", "pretrain", "optimizer"),
        ("pipelines", "my_lab.recipes:negatives", "prepare", "read.frames"),
    ],
)
def test_recipes_that_other_packages_define_are_shown(package: str, name: str, verb: str, setting: str) -> None:
    line = [sys.executable, "-m", "crossdim", "recipes", name, "--json"]
    folder = Path(__file__).parent / package / "outside"
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    document = json.loads(done.stdout)
    assert document["verb"] == verb
    assert setting in {one["path"] for one in document["settings"]}


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["cdsl-p3d"], "did you mean cdssl-p3d"),
        (["ct-superpatch"], "did you mean ct-superpatches"),
        (["four-arm"], "did you mean four-arms"),
        (["maesil", "--diff", "maesil:smal"], "did you mean maesil:small"),
        (["nowhere.at_all:thing"], "there is no module nowhere.at_all"),
        (["--yaml"], "name it"),
        (["four-arms", "--schema"], "no settings of its own"),
    ],
)
def test_wrong_use_is_answered_in_one_line(arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", *arguments]) == 1
    shown = capsys.readouterr()
    assert answer in shown.err
    assert shown.out == ""


def test_a_study_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert STUDY_SUBJECTS["pseudo3d"] in run(capsys, "pseudo3d")
