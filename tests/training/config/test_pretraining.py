"""A run in words: what a run writes, a run can read; what does not exist is named with what does."""

from __future__ import annotations

import json

import pytest

from crossdim.storage_schema.errors import DocumentError, UsageError
from crossdim.training.config.pretraining import apply_overrides, read_config
from crossdim.training.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_json(name: str) -> None:
    run = recipe(name)
    assert read_config(json.loads(json.dumps(run.document())), "test") == run


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean cdssl-p3d:tiny"):
        recipe("cdsl-p3d:tinny")


def test_settings_are_changed_by_path_and_typed_by_their_field() -> None:
    run = apply_overrides(
        recipe("cdssl-p3d:tiny"), ["optimizer.lr=1e-4", "method.backbone.norm=gn", "clip_norm=1", "method.solid.swaps=0"]
    )
    assert (run.optimizer.lr, run.clip_norm) == (1e-4, 1.0)
    assert run.document()["method"]["backbone"]["norm"] == "gn"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "did you mean optimizer"),
        ("optimizer.lr=fast", "found 'fast'; expected float"),
        ("method.backbone.norm=xx", "expected 'bn' or 'gn' or 'in'"),
        ("steps", "takes path=value"),
        ("method.kind=maesil", "unknown setting"),
    ],
)
def test_a_wrong_override_is_one_sentence(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_overrides(recipe("cdssl-p3d:tiny"), [override])


def test_a_document_names_all_its_faults_at_once() -> None:
    document = recipe("cdssl-p3d:tiny").document()
    document["stepz"] = 3
    document["optimizer"]["lr"] = "fast"
    del document["global_batch"]
    with pytest.raises(DocumentError) as caught:
        read_config(document, "config.json")
    assert {problem.loc for problem in caught.value.problems} == {"stepz", "optimizer.lr", "global_batch"}


def test_a_run_without_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        apply_overrides(recipe("cdssl-p3d:tiny"), ["steps=0"])
