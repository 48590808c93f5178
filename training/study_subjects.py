"""The studies by name and what each compares: for the help text, which must not import torch."""

from __future__ import annotations

STUDY_SUBJECTS = {
    "four-arms": "scratch, 2D, 3D and joint",
    "pseudo3d": "how an image becomes a volume",
    "restorers": "MAESIL beside AE, VAE and VQ-VAE",
}
