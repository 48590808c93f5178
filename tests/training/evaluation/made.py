"""Labelled samples that are made: dark noise and bright noise, in images and in volumes."""

from __future__ import annotations

import numpy as np

from crossdim.training.evaluation.features import Labelled


def labelled(x_NC: np.ndarray, labels: np.ndarray, patients: np.ndarray | None = None) -> Labelled:
    """Named for the errors; each sample from a patient of its own if none is given."""
    patients = np.arange(len(labels)) if patients is None else patients
    return Labelled(
        name="made", presentation="image", x_NC=x_NC.astype(np.float32), labels=labels.astype(str), patients=patients.astype(str)
    )


def noises(count: int, axes: int, *, side: int = 32, seed: int = 0) -> Labelled:
    """Two classes in turn, (N, 1, H, W) or (N, 1, D, H, W), of means 0 and 2 and deviation 0.2."""
    classes = np.arange(count) % 2
    means = (2.0 * classes).reshape([-1, *[1] * (axes + 1)])
    return labelled(np.random.default_rng(seed).normal(means, 0.2, (count, 1, *(side,) * axes)), classes)
