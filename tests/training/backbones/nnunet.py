"""The encoder of ``ResidualEncoderUNet`` in dynamic-network-architectures, configured as nnU-Net's ResEnc-L."""

from __future__ import annotations

from torch import nn

#: What nnU-Net plans for large isotropic patches.
NNUNET_STRIDES = ((1, 1, 1), *[(2, 2, 2)] * 5)
FEATURES, BLOCKS = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)


def library_encoder(
    strides: tuple[tuple[int, int, int], ...] = NNUNET_STRIDES,
    features: tuple[int, ...] = FEATURES,
    blocks: tuple[int, ...] = BLOCKS,
) -> nn.Module:
    """With the library's own initialisation. Returns the maps of all stages."""
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet  # needs no timm, as Primus does

    stages = len(features)
    network = ResidualEncoderUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=features,
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=strides,
        n_blocks_per_stage=blocks,
        num_classes=2,
        n_conv_per_stage_decoder=[1] * (stages - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    network.apply(network.initialize)
    encoder: nn.Module = network.encoder
    return encoder
