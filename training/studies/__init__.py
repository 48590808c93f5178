"""Studies by name: functions from a recipe's configuration to arms."""

from __future__ import annotations

from collections.abc import Callable

from crossdim.storage_schema.errors import UsageError, describe_unknown_name
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.studies.ablations import pseudo3d_ablation
from crossdim.training.studies.arms import four_arms
from crossdim.training.studies.base import Study
from crossdim.training.studies.restorers import restorers

STUDIES: dict[str, Callable[[Pretraining], Study]] = {
    "four-arms": four_arms,
    "pseudo3d": pseudo3d_ablation,
    "restorers": restorers,
}


def study(name: str, config: Pretraining) -> Study:
    """Build the study of that name around a configuration.

    Args:
        name: in ``STUDIES``.
        config: what the arms have in common.

    Returns:
        The study, with the configurations of its arms.

    Raises:
        UsageError: naming the nearest studies.
    """
    if name not in STUDIES:
        raise UsageError(describe_unknown_name("study", name, STUDIES))
    return STUDIES[name](config)
