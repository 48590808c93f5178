"""The trackers of ``pretrain --track``, for help and names of files, which import none of them."""

from __future__ import annotations

#: As packages are called, and extras.
TRACKER_NAMES = ("wandb", "mlflow")
