"""MAESIL beside AE, VAE and VQ-VAE on equal terms, which its paper lacks; and beside a remedy against its patch pattern."""

from __future__ import annotations

from dataclasses import replace

from storage_schema.errors import RunError
from training.config import Pretraining
from training.methods.maesil import Maesil
from training.recipes.maesil import BASELINES
from training.studies.base import Arm, Diet, Study

#: Channels of the smooth head that stands for a remedy.
SMOOTH_CHANNELS = 8


def restorers(config: Pretraining) -> Study:
    """MAESIL as given, MAESIL with a smooth head, and each baseline with the same crops, optimizer, batch, order and steps.

    Raises:
        RunError: if the configuration is not MAESIL's, or no baselines of its size are known.
    """
    method = config.method
    if not isinstance(method, Maesil) or method.crops not in BASELINES:
        raise RunError(f"this study takes maesil:small or maesil:tiny, whose baselines have a size; found {config.method}")
    smooth = replace(method, decoder=replace(method.decoder, smooth_channels=SMOOTH_CHANNELS))
    baselines = [baseline().method for baseline in BASELINES[method.crops]]
    methods = {"maesil": method, "maesil-smooth-head": smooth} | {baseline.kind: baseline for baseline in baselines}
    arms = (Arm(name=name, config=replace(config, method=one), diet=Diet.SOLID) for name, one in methods.items())
    return Study(title="restoring superpatches on equal terms", arms=tuple(arms))
