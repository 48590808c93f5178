"""A setting with a value that makes no sense is named with its value alone; the rest of a configuration is not printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crossdim.foundation.settings import override_settings
from crossdim.pipelines.jobs.recipe import ShardSize
from crossdim.pipelines.stages.resample import Resample
from crossdim.pipelines.stages.resize import Fit
from crossdim.storage_schema.errors import CrossdimError, UsageError
from crossdim.storage_schema.superpatch import SuperpatchGrid
from crossdim.training.config.execution import Execution
from crossdim.training.config.optimizers import AdamW
from crossdim.training.config.pretraining import apply_overrides
from crossdim.training.data.mixing import Mixing
from crossdim.training.methods.autoencoders import VqVae
from crossdim.training.recipes import recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fit(max_side=-3), "found max_side=-3"),
        (lambda: ShardSize(target_bytes=0, max_samples=0), "found target_bytes=0, max_samples=0"),
        (lambda: Resample(spacing_mm=float("nan")), "found spacing_mm=nan"),
        (lambda: SuperpatchGrid(side=0), "found side=0"),
        (lambda: Execution(ema=1.5), "found ema=1.5"),
        (lambda: Mixing(block_steps=0), "found block_steps=0"),
        (lambda: AdamW(betas=(0.9, 1.0)), "found betas=(0.9, 1.0)"),
        (lambda: VqVae(decay=float("nan")), "found decay=nan"),
    ],
)
def test_only_what_is_wrong_is_told(make: Callable[[], object], message: str) -> None:
    with pytest.raises(CrossdimError) as caught:
        make()
    assert str(caught.value).endswith(f"; {message}")


def test_a_value_that_a_configuration_refuses_is_wrong_use_and_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"\A--set seed=-1: a run takes .* needs .*; found seed=-1\Z"):
        apply_overrides(recipe("cdssl-p3d:tiny"), ["seed=-1"])
    with pytest.raises(UsageError, match=r"\A--set max_side=0: fit needs .*; found max_side=0\Z"):
        override_settings(Fit(max_side=3), ["max_side=0"])


def test_no_message_holds_a_whole_configuration() -> None:
    """Its text is Python's, of hundreds of characters."""
    for package in ("storage_schema", "foundation", "pipelines", "training"):
        for path in (ROOT / package).rglob("*.py"):
            assert "{self}" not in path.read_text(), path
