"""Backbones by name, and saving and loading of trained encoders: plain PyTorch, no Ray, no object store."""

from __future__ import annotations

import io
import logging
import shlex
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import GeometryError, RunError, StorageError, describe_unknown_name
from crossdim.training.backbones.base import BackboneSettings, EncoderSpec
from crossdim.training.backbones.crossd_unet import CrossDUNetSettings
from crossdim.training.backbones.resenc import ResEncSettings
from crossdim.training.backbones.resnet import ResNetSettings
from crossdim.training.backbones.strided import StridedSettings
from crossdim.training.backbones.superpatch_vit import SuperpatchViTSettings
from crossdim.training.backbones.swin3d import Swin3DSettings
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.backbones.vit3d import ViT3DSettings
from crossdim.training.network_limits import limit_parts
from crossdim.training.torch_file import check_tensor, load_document, tensor_hashes

_LOG = logging.getLogger(__name__)

#: Raised while a network is built from a spec or weights that do not fit it.
UNFIT = (
    *(TypeError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError, MemoryError, AssertionError),
    *(StorageError, GeometryError),
)

#: A new backbone needs its module, its test, and a line here.
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
        RunError: if the spec names a backbone that is not registered, or is one of another module here.
    """
    return _find_settings(spec)(**spec.settings).encoder()


def _find_settings(spec: EncoderSpec) -> type[BackboneSettings]:
    """Find the class of a spec's settings; no module is imported because a file names it.

    Raises:
        RunError: if there is none, or only one of that name from another module than the spec's.
    """
    kind, module = spec.backbone, spec.extension
    settings = BACKBONES.get(kind)
    if settings is not None and settings.extension == module:
        return settings
    if module is None:
        own = [name for name, each in BACKBONES.items() if each.extension is None]
        raise RunError(describe_unknown_name("backbone", kind, own))
    taken = f"; here {kind!r} is {settings.extension or 'crossdim'}'s, and only one of the two can be loaded" if settings else ""
    raise RunError(
        f"its backbone {kind!r} is of the module {module}{taken}. No module is imported because a file names it: "
        f"call crossdim.load_extension({module!r}), or give --extension {shlex.quote(module)}"
    )


def serialise_encoder(weights: Mapping[str, Tensor], spec: EncoderSpec) -> bytes:
    """Serialise an encoder as a file that loads with ``weights_only=True``: spec, weights by name, and the hashes of both.

    Args:
        weights: state of the encoder.
        spec: how to rebuild it.

    Returns:
        The bytes of ``encoder.pt``.
    """
    buffer = io.BytesIO()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    document = spec.document()
    torch.save({"spec": document, "weights": plain, "sha256": _compute_hashes(document, plain)}, buffer)
    return buffer.getvalue()


def _compute_hashes(spec: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"spec": digest(spec), "weights": tensor_hashes(weights)}


def load_encoder(file: str | PathLike[str] | io.BytesIO, subject: str | None = None) -> tuple[nn.Module, EncoderSpec]:
    """Load the encoder of a run, in evaluation mode, and its spec.

    A file that was written before encoders had hashes is loaded with a warning.

    Args:
        file: ``encoder.pt`` of a run, or its bytes.
        subject: where it came from, for messages; the name of the file if there is one.

    Returns:
        The encoder, on the CPU, and its spec.

    Raises:
        StorageError: if the file is damaged, or a hash in it does not match.
        RunError: if it holds no encoder that this release can build.
    """
    data, name = (file.getvalue(), "encoder") if isinstance(file, io.BytesIO) else (Path(file).read_bytes(), str(file))
    subject = subject or name
    document = load_document(data, subject)
    weights = _check_weights(document, subject)
    try:
        spec = EncoderSpec(**document["spec"])
        _check_network(spec, weights)
        encoder = build_encoder(spec)
        encoder.load_state_dict(weights)
    except RunError as error:
        raise RunError(f"{subject}: {error}") from error
    except UNFIT as error:
        message = " ".join(str(error).split())[:300]
        raise RunError(f"{subject}: holds no encoder that this release can build: {message}") from error
    return encoder.eval(), spec


def _check_network(spec: EncoderSpec, weights: Mapping[str, Tensor]) -> None:
    """Compare a spec and weights with the network that the spec describes, before memory is allocated for it.

    Raises:
        ValueError: if the spec does not fit its network, or a weight has another shape or type.
    """
    digests, fine = spec.preprocessing_digests, isinstance(spec.normalisation, str) and isinstance(spec.pseudo3d, dict | None)
    fine = fine and isinstance(spec.extension, str | None)
    if not fine or not isinstance(digests, list) or not all(isinstance(text, str) for text in digests):
        raise ValueError("its spec has normalisation, pseudo3d, preprocessing_digests or extension of another type")
    settings = _find_settings(spec)(**spec.settings)
    with torch.device("meta"), limit_parts(len(weights)):
        expected = settings.encoder().state_dict()
    of_network = EncoderSpec.of(settings)
    for name in ("in_channels", "num_features", "side_multiple"):
        stated, built = getattr(spec, name), getattr(of_network, name)
        if type(stated) is not type(built) or stated != built:
            raise ValueError(f"its spec states {name} {stated!r}, and its network has {built}")
    if odd := sorted(expected.keys() ^ weights.keys()):
        raise ValueError(f"{len(odd)} names of weights are not those of its network, such as {odd[0]}")
    for name, like in expected.items():
        check_tensor(weights[name], like, name)


def _check_weights(document: Any, subject: str) -> dict[str, Tensor]:
    """Check the members and hashes of an encoder's document, and return its weights."""
    members = set(document) if isinstance(document, dict) else set()
    if members not in ({"spec", "weights", "sha256"}, {"spec", "weights"}):
        raise RunError(
            f"{subject}: holds {sorted(map(str, members))}, expected spec, weights and sha256; name a run's encoder.pt"
        )
    spec, weights = document["spec"], document["weights"]
    if not isinstance(spec, dict) or not isinstance(weights, dict) or not all(map(_is_whole, weights.values())):
        raise RunError(
            f"{subject}: its spec is not a dictionary of settings, or its weights are not tensors; name a run's encoder.pt"
        )
    if "sha256" not in document:
        _LOG.warning("%s was written before encoders had hashes: its values are not checked", subject)
        return weights
    try:
        found = _compute_hashes(spec, weights)
    except (TypeError, ValueError) as error:  # of a spec that is no JSON
        raise RunError(f"{subject}: its spec is no settings: {error}") from error
    if found != document["sha256"]:
        remedy = "restore it; a run that goes on writes it anew with its next checkpoint"
        raise StorageError(f"{subject}: {_describe_difference(found, document['sha256'])}; {remedy}")
    return weights


def _is_whole(value: Any) -> bool:
    """Whether a value is a dense tensor with all its numbers in the file; a view of a few numbers may state any shape."""
    return isinstance(value, Tensor) and value.layout is torch.strided and value.nbytes <= value.untyped_storage().nbytes()


def _describe_difference(found: dict[str, Any], stated: Any) -> str:
    theirs = stated.get("weights") if isinstance(stated, dict) else None
    names = [name for name, sha256 in found["weights"].items() if not isinstance(theirs, dict) or theirs.get(name) != sha256]
    if not names:
        return "its spec or the list of its hashes is not what was written"
    return f"{len(names)} of {len(found['weights'])} tensors have not the hash that they were written with, such as {names[0]}"
