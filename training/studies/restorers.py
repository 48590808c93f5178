"""MAESIL beside AE, VAE and VQ-VAE in the same setting, which its paper does not show."""

from __future__ import annotations

from dataclasses import replace

from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.maesil import Maesil
from crossdim.training.recipes.maesil import BASELINES
from crossdim.training.studies.base import Arm, DataSubset, Study


def restorers(config: Pretraining) -> Study:
    """MAESIL as given, and each baseline with the same crops, optimizer, batch, order and steps.

    Raises:
        UsageError: if the configuration is not MAESIL's, or no baselines of its size are known.
    """
    method = config.method
    if not isinstance(method, Maesil) or method.crops not in BASELINES:
        raise UsageError(f"this study takes maesil:small or maesil:tiny, whose baselines have a size; found {config.method}")
    baselines = [baseline().method for baseline in BASELINES[method.crops]]
    arms = (Arm(name=one.kind, config=replace(config, method=one), data=DataSubset.VOLUMES) for one in (method, *baselines))
    return Study(title="restoring superpatches on equal terms", arms=tuple(arms))
