"""PyramidNet: an encoder, a decoder of three levels without skip connections, and PCRLv2's heads and training step.

Source: RL4M/PCRLv2, models/pcrlv2_model_3d.py lines 54-72 and 114-129, train_3d.py lines 86-138. Where code and paper
differ, or the code has a pitfall, this is what we decided, for the whole method:

* Learning rate: 1e-3, as in the 3D code; the paper says 1e-2 for fine-tuning.
* "Multi-scale" is one random level per step, as in the code; ``level_mode`` all takes every level.
* Restoration at depth has batch norm before its sigmoid, as in the code.
* Not computed, since the code does not use it: restorations at levels that were not drawn, the output of view 2 and of
  local views.
* Weights are drawn from the run's seed; the code's 2D network starts, by default, from ImageNet weights.
* Crops are drawn online; ``frozen_pairs`` gives the code's 16 fixed ones per scan. They are resized as there, antialiased.
* Rotations are of the body, where the code rotates resized crops by the same angles, whose voxels are not cubes.
* Blur, noise and swapped patches have the code's size at its sides of views, and less in smaller views.
* No crop is rejected: the code's threshold depends on the size that the crop had before it was resized. Boxes of air only
  never become superpatches. A short scan is padded to a box, where the code crashes.
* Local boxes are clamped to the volume, where the code runs over the border and stretches; ``local_box`` hull keeps them in the
  hull of the global pair, where in the code only their first corners are.
* Heads that were not drawn rest: no decay and no momentum without a gradient, as the code does under PyTorch 2, whose
  ``zero_grad`` removes gradients. Under the PyTorch of its time, gradients of 0 stayed, with which heads decayed.
* Random numbers depend on the position in the run, where the code's processes inherit one generator.
* A loss that is not finite stops the run, where the code skips any step whose loss is above 1000.
* The weight of deep restoration decays over the run, whatever its length, where the code has 240 epochs built in.
* Splits are by patient, where the code selects models on its test list. A run can be resumed, where the code cannot.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossdim.training.backbones.base import BackboneSettings, EncoderSpec
from crossdim.training.data.collate import Batch
from crossdim.training.layers.dual_norm import select_statistics
from crossdim.training.methods.base import ENCODER, Method, Step, StepOutput, mean_over_space
from crossdim.training.objectives.collapse import evenness
from crossdim.training.objectives.pcrlv2 import DrawnLevels, LevelMode, Pair, compute_losses, draw_levels

#: Renders the views of a batch on its device.
Prepare = Callable[[Batch], dict[str, Tensor]]


def views_of_batch(batch: Batch) -> dict[str, Tensor]:
    """The views as they were rendered in loader threads."""
    return batch.tensors


class LevelHead(nn.Module):
    """The heads of one pyramid level: projection, prediction, restoration."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.BatchNorm1d(width)  # no MLP before it: code, PCRLv2 lines 54-72
        self.predict = nn.Sequential(
            nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width)
        )
        self.restore = nn.Sequential(nn.Conv3d(width, 1, 3, padding=1), nn.BatchNorm3d(1), nn.Sigmoid())

    def pair(self, feature_BCDHW: Tensor) -> Pair:
        """Projection and prediction, (B, C) each, of a level's feature map."""
        with torch.autocast(feature_BCDHW.device.type, enabled=False):  # inputs of losses are float32 at least
            wide = torch.promote_types(feature_BCDHW.dtype, torch.float32)
            z = self.project(feature_BCDHW.mean(dim=(2, 3, 4), dtype=wide))
            return Pair(z, self.predict(z))


class PyramidNet(Method):
    """One network for images and volumes; with PCRLv2's U-Net at base width 32 it has 17,111,434 parameters."""

    drawn = frozenset({"heads"})

    def __init__(self, backbone: BackboneSettings, level_mode: LevelMode, prepare: Prepare = views_of_batch) -> None:
        super().__init__()
        self.encoder = backbone.encoder()
        self.decoder = backbone.decoder()
        self.heads = nn.ModuleList(LevelHead(width) for width in backbone.level_widths)
        self.out = nn.Conv3d(backbone.level_widths[-1], 1, 1)
        self.encoder_spec = EncoderSpec.of(backbone)
        self._level_mode = level_mode
        self._prepare = prepare

    def levels(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Feature maps of the decoder, deepest first."""
        maps: list[Tensor] = self.decoder(self.encoder(x_BCDHW))
        return maps

    def pairs(self, levels: list[Tensor]) -> list[Pair]:
        """Projection and prediction at every level."""
        return [head.pair(level) for head, level in zip(self.heads, levels, strict=True)]  # type: ignore[operator]

    def restore_at(self, level: int, levels: list[Tensor]) -> Tensor:
        """The restoration of one level, resized to the input's size by trilinear interpolation.

        Args:
            level: 0 is the deepest.
            levels: feature maps of the decoder, deepest first.

        Returns:
            (B, 1, D, H, W) in unit range.
        """
        small: Tensor = self.heads[level].restore(levels[level])  # type: ignore[operator]
        full = levels[-1].shape[2:]
        return small if small.shape[2:] == full else F.interpolate(small, size=full, mode="trilinear", align_corners=False)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Compute the four terms of the objective.

        Source: PCRLv2 (code).

        Args:
            batch: tensors ``view1``, ``view2`` and ``clean1``, (B, 1, D, H, W), and ``local``, (B, L, 1, d, h, w).
            step: position in the run: source of the drawn levels, and schedule of the term ``scale``.

        Returns:
            Losses ``pixel``, ``semantic``, ``local`` and ``scale``; monitor ``evenness`` of each level.

        Raises:
            GeometryError: if the batch has a view that the encoder cannot pool.
        """
        select_statistics(self, batch.stream)
        views = self._prepare(batch)
        view1, view2, clean1, local = (views[name] for name in ("view1", "view2", "clean1", "local"))
        rng = step.rng(batch.stream)
        drawn = draw_levels(rng, len(self.heads), local.shape[1], self._level_mode)
        levels1 = self.levels(view1)
        one, two = self.pairs(levels1), self.pairs(self.levels(view2))
        losses = compute_losses(
            one=one,
            two=two,
            local=self._local_pairs(local),
            restored=self.out(levels1[-1]).to(clean1.dtype).sigmoid(),
            restored_deep=[self.restore_at(level, levels1) for level in drawn.compared],
            clean=clean1,
            drawn=drawn,
            progress=step.progress,
        )
        # Averaging over ranks expects a gradient of every parameter: heads that were not drawn take part with weight 0. After
        # that the gradient is taken from them, so that they rest.
        losses["scale"] = losses["scale"] + 0.0 * torch.stack([p.sum() for p in self.heads.parameters()]).sum()
        monitors = {f"evenness{level}": evenness(pair.z) for level, pair in enumerate(one)}
        return StepOutput(losses, monitors, self._unused_heads(drawn))

    def _unused_heads(self, drawn: DrawnLevels) -> frozenset[str]:
        """Names of the heads that have no part in a step."""
        restoring = {f"heads.{level}.restore" for level in range(len(self.heads)) if level not in drawn.compared}
        comparing = (level for level in range(len(self.heads)) if level not in drawn.projected)
        return frozenset(restoring).union(*({f"heads.{level}.project", f"heads.{level}.predict"} for level in comparing))

    def embed(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Features of the encoder, and the projection of each level, of both global views."""
        select_statistics(self, batch.stream)
        views = self._prepare(batch)
        found: dict[str, list[Tensor]] = {}
        for name in ("view1", "view2"):
            deepest = self.encoder(views[name])
            found.setdefault(ENCODER, []).append(mean_over_space(deepest))
            for level, pair in enumerate(self.pairs(self.decoder(deepest))):
                found.setdefault(f"z{level}", []).append(pair.z)
        return found

    def _local_pairs(self, local_BLCDHW: Tensor) -> list[list[Pair]]:
        """Pairs of each local view; all local views pass the network as one batch, as in PCRLv2."""
        batch, count = local_BLCDHW.shape[:2]
        by_level = self.pairs(self.levels(local_BLCDHW.transpose(0, 1).flatten(0, 1)))
        return [
            [Pair(p.z[i * batch : (i + 1) * batch], p.q[i * batch : (i + 1) * batch]) for p in by_level] for i in range(count)
        ]

    def networks(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.encoder, self.decoder]

    def units(self) -> list[nn.Module]:
        """Stages of encoder and decoder."""
        return [*self.encoder.units(), *self.decoder.units()]  # type: ignore[operator]

    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstructed input, in unit range."""
        restored: Tensor = self.out(self.levels(x)[-1]).sigmoid()
        return restored
