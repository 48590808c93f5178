"""The recipes of ``pretrain`` in one line each, for lists and help, which import no torch. A test builds every network."""

from __future__ import annotations

from typing import NamedTuple


class RecipeSummary(NamedTuple):
    """A recipe in one line.

    Attributes:
        steps: optimizer steps.
        batch: samples of a step.
        optimizer: its kind.
        lr: largest learning rate.
        precision: of the networks; ``auto`` is left to the devices.
        parameters: weights that are trained, heads and decoders included.
    """

    steps: int
    batch: int
    optimizer: str
    lr: float
    precision: str
    parameters: int


#: Every name in ``recipes.RECIPES``.
RECIPE_SUMMARIES = {
    "cdssl-p3d": RecipeSummary(74_760, 64, "sgd", 0.001, "auto", 17_111_434),
    "cdssl-p3d:paper": RecipeSummary(74_760, 64, "sgd", 0.001, "auto", 17_111_434),
    "cdssl-p3d:tiny": RecipeSummary(60, 12, "sgd", 0.001, "auto", 270_106),
    "cross-d": RecipeSummary(100_000, 128, "sgd", 0.025, "auto", 44_761_860),
    "cross-d:tiny": RecipeSummary(400, 16, "sgd", 0.025, "auto", 545_036),
    "cross-d-supervised": RecipeSummary(100_000, 256, "adamw", 0.001, "auto", 33_217_286),
    "cross-d-supervised:tiny": RecipeSummary(400, 16, "adamw", 0.001, "auto", 530_478),
    "maesil": RecipeSummary(100_000, 4, "adamw", 0.0001, "auto", 48_739_712),
    "maesil:small": RecipeSummary(2000, 4, "adamw", 0.001, "auto", 2_170_496),
    "maesil:tiny": RecipeSummary(60, 8, "adamw", 0.003, "auto", 81_560),
    "maesil-crossdim:small": RecipeSummary(2000, 8, "adamw", 0.001, "auto", 2_170_496),
    "ae:small": RecipeSummary(2000, 4, "adamw", 0.001, "auto", 1_726_289),
    "ae:tiny": RecipeSummary(60, 8, "adamw", 0.003, "auto", 15_013),
    "vae:small": RecipeSummary(2000, 4, "adamw", 0.001, "auto", 1_775_825),
    "vae:tiny": RecipeSummary(60, 8, "adamw", 0.003, "auto", 15_229),
    "vqvae:small": RecipeSummary(2000, 4, "adamw", 0.001, "auto", 1_759_377),
    "vqvae:tiny": RecipeSummary(60, 8, "adamw", 0.003, "auto", 15_161),
}
RECIPE_NAMES = tuple(RECIPE_SUMMARIES)
