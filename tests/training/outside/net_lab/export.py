"""An export: the network of an encoder as a program of ``torch.export``, which runs without crossdim."""

from __future__ import annotations

from pathlib import Path

import torch

from crossdim.training.api.encoder import Encoder


def export_program(encoder: Encoder, file: Path, side: int) -> None:
    example = torch.zeros(1, encoder.spec.in_channels, side, side, side)
    torch.export.save(torch.export.export(encoder.module, (example,)), file)
