"""What ``evaluate`` measures, by name: for lists, which import no torch."""

from __future__ import annotations

EVALUATION_TASKS = {
    "knn": "votes of the nearest neighbours in a dataset with labels; balanced accuracy beside untrained encoders",
    "linear": "logistic regression on the features of a dataset with labels; balanced accuracy beside untrained encoders",
    "reconstruction": "whole volumes of superpatches, reconstructed by methods that can (maesil, ae, vae, vqvae)",
}
