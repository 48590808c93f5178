"""Backbones by name, and the door through which a trained encoder is loaded: plain PyTorch, no Ray, no object store."""

from __future__ import annotations

import io
from collections.abc import Mapping
from os import PathLike

import torch
from torch import Tensor, nn

from storage_schema.errors import RunError, unknown_name
from training.backbones.base import BackboneSettings, EncoderSpec
from training.backbones.crossd_unet import CrossDUNetSettings
from training.backbones.resenc import ResEncSettings
from training.backbones.resnet import ResNetSettings
from training.backbones.strided import StridedSettings
from training.backbones.superpatch_vit import SuperpatchViTSettings
from training.backbones.swin3d import Swin3DSettings
from training.backbones.unet3d import UNet3DSettings
from training.backbones.vit3d import ViT3DSettings

#: A new backbone is its file, its test, and a line here.
BACKBONES: dict[str, type[BackboneSettings]] = {
    settings.kind: settings
    for settings in (
        *(UNet3DSettings, ResEncSettings, ViT3DSettings, Swin3DSettings),
        *(ResNetSettings, CrossDUNetSettings, SuperpatchViTSettings, StridedSettings),
    )
}


def build_encoder(spec: EncoderSpec) -> nn.Module:
    """A freshly initialised encoder.

    Raises:
        RunError: if the spec names a backbone that does not exist.
    """
    if spec.backbone not in BACKBONES:
        raise RunError(unknown_name("backbone", spec.backbone, BACKBONES))
    return BACKBONES[spec.backbone](**spec.settings).encoder()


def encoder_bytes(weights: Mapping[str, Tensor], spec: EncoderSpec) -> bytes:
    """An encoder as a file that loads with ``weights_only=True``: its spec, and its weights by name."""
    buffer = io.BytesIO()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    torch.save({"spec": spec.document(), "weights": plain}, buffer)
    return buffer.getvalue()


def load_encoder(file: str | PathLike[str] | io.BytesIO) -> tuple[nn.Module, EncoderSpec]:
    """The encoder of a run, in evaluation mode, and how to feed it.

    Args:
        file: ``encoder.pt`` of a run.
    """
    document = torch.load(file, map_location="cpu", weights_only=True)
    spec = EncoderSpec(**document["spec"])
    encoder = build_encoder(spec)
    encoder.load_state_dict(document["weights"])
    return encoder.eval(), spec
