"""The unit of PCRLv2's network: convolution, normalisation, ReLU. Source: models/pcrlv2_model_3d.py lines 6-34."""

from __future__ import annotations

from torch import nn

from crossdim.training.layers.dual_norm import Norm, build_norm


def build_unit(width_in: int, width_out: int, norm: Norm) -> nn.Sequential:
    """Build 3x3x3 convolution with bias, normalisation, ReLU.

    Args:
        width_in: input channels.
        width_out: output channels.
        norm: name of the norm.

    Returns:
        (B, width_in, D, H, W) -> (B, width_out, D, H, W).
    """
    return nn.Sequential(nn.Conv3d(width_in, width_out, 3, padding=1), build_norm(norm, width_out), nn.ReLU(inplace=True))
