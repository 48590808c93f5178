"""Restorations of one view, for pictures. Masks are a function of a seed: the same at every step of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.sample import Scaling
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.order import rng_at
from crossdim.training.data.views import Floats
from crossdim.training.layers.tokens import count_tokens, patchify, spatial_shape, unpatchify, visible_mask
from crossdim.training.methods.base import Method
from crossdim.training.methods.masked_autoencoder import MaskedAutoencoder
from crossdim.training.methods.restoration import Restorer


@dataclass(frozen=True, kw_only=True, slots=True)
class Restoration:
    """A view as a network restores it, (C, D, H, W) in unit range.

    Attributes:
        visible: what the network saw of the view, hidden patches at 0; None for a method without a mask.
        restored: the whole view, no voxel of which is copied from the input.
    """

    visible: Floats | None
    restored: Floats


@torch.no_grad()
def restore_view(method: Method, x_CDHW: Floats, stream: str, seed: int = 0) -> Restoration | None:
    """Restore a view, a masked autoencoder from the tokens that its mask leaves.

    Args:
        method: set to evaluation mode.
        x_CDHW: input of the network.
        stream: whose mask is drawn.
        seed: of the mask.

    Returns:
        The restoration; None for a method that restores nothing.
    """
    method.eval()
    x_BCDHW = torch.from_numpy(x_CDHW)[None]
    if not isinstance(method, MaskedAutoencoder):
        restored = method.reconstruct(x_BCDHW)
        return None if restored is None else Restoration(visible=None, restored=restored[0].numpy())
    ids = method.draw_visible(x_BCDHW, stream, rng_at(seed, 0))
    restored = method.restore(x_BCDHW, ids)
    if restored is None:
        return None
    rows = patchify(x_BCDHW, method.patch)
    seen = visible_mask(ids, rows.shape[1])[..., None]
    visible = unpatchify(rows * seen, method.patch, count_tokens(spatial_shape(x_BCDHW), method.patch))
    return Restoration(visible=visible[0].numpy(), restored=restored[0].numpy())


def panels(method: Restorer, x_CDHW: Floats, scaling: Scaling, seed: int = 0) -> Mapping[str, Floats]:
    """The middle slice of a box before, masked, reconstructed, and the error.

    Hidden patches are shown as the lowest value. A method without a mask has no slice ``masked``.

    Args:
        method: set to evaluation mode.
        x_CDHW: unit range.
        scaling: of the sample.
        seed: of the mask.

    Returns:
        (H, W) slices by name, in physical units (HU for CT).

    Raises:
        RunError: if the method restores nothing.
    """
    found = restore_view(method, x_CDHW, str(Presentation.SUPERPATCH), seed)
    if found is None:
        raise RunError("this method predicts patches normalised one by one (norm_pix) and restores no volume")
    span, middle = scaling.high - scaling.low, x_CDHW.shape[1] // 2
    shown = {"before": x_CDHW} | ({} if found.visible is None else {"masked": found.visible}) | {"reconstructed": found.restored}
    physical = {name: volume[0, middle] * span + scaling.low for name, volume in shown.items()}
    return physical | {"error": (found.restored - x_CDHW)[0, middle] * span}
