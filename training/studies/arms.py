"""The four arms: does one network learn more from images and volumes together than from either alone, or from nothing?

Joint pretraining sees more data than a single dimension does, so single dimensions are run twice: with as many samples of
their own as the joint run gives them (equal steps, half the samples), and with as many as it has in all (equal samples).
"""

from __future__ import annotations

from dataclasses import replace

from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.studies.base import Arm, Diet, Study


def four_arms(config: Pretraining) -> Study:
    """Scratch, 2D only, 3D only and joint, at equal steps and at equal samples.

    Raises:
        UsageError: if the batch cannot be halved.
    """
    if config.global_batch % 2:
        raise UsageError(f"the joint arm gives half of a step to each dimension; global_batch is {config.global_batch}")
    half = replace(config, global_batch=config.global_batch // 2)
    return Study(
        title="four arms",
        arms=(
            Arm(name="scratch", config=config, diet=Diet.NOTHING),
            Arm(name="2d-equal-steps", config=half, diet=Diet.FLAT),
            Arm(name="2d-equal-samples", config=config, diet=Diet.FLAT),
            Arm(name="3d-equal-steps", config=half, diet=Diet.SOLID),
            Arm(name="3d-equal-samples", config=config, diet=Diet.SOLID),
            Arm(name="joint", config=config),
        ),
    )
