"""The four arms: does one network learn more from images and volumes together than from either alone, or from none?

Joint pretraining sees more data than a single dimension does, so each single dimension is run twice: with as many samples
as the joint run has of it (equal steps, half the samples), and with as many as the joint run has in all (equal samples).
"""

from __future__ import annotations

from dataclasses import replace

from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.studies.base import Arm, DataSubset, Study


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
            Arm(name="scratch", config=config, data=DataSubset.NOTHING),
            Arm(name="2d-equal-steps", config=half, data=DataSubset.IMAGES),
            Arm(name="2d-equal-samples", config=config, data=DataSubset.IMAGES),
            Arm(name="3d-equal-steps", config=half, data=DataSubset.VOLUMES),
            Arm(name="3d-equal-samples", config=config, data=DataSubset.VOLUMES),
            Arm(name="joint", config=config),
        ),
    )
