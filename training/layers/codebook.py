"""Codebook of vector quantisation; its entries are moving averages of the codes assigned to them and have no gradients.

Axes: B batch, F features, D depth, H height, W width, M codes of a batch, K entries. Source: van den Oord et al., Neural
discrete representation learning (arXiv 1711.00937), appendix A.1. Restarting entries that are not used is ours, and so are
its numbers.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

#: An entry counts as unused if its uses are below this fraction of an equal share.
DEAD_BELOW = 0.1


class Codebook(nn.Module):
    """K entries of F features; all its state is in buffers, which are equal on all ranks.

    Attributes:
        entries: (K, F).
        uses: moving average of the number of codes of a batch, on all ranks, that are assigned to each entry.
        sums: moving average of the sums of those codes; an entry is its sum divided by its uses.
    """

    entries: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(self, count: int, features: int, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self.register_buffer("entries", torch.randn(count, features))
        # The initial entries have no uses, so the first batch restarts nearly all of them from its own codes.
        self.register_buffer("uses", torch.zeros(count))
        self.register_buffer("sums", torch.zeros(count, features))

    def nearest(self, codes_MF: Tensor) -> Tensor:
        """Index of the entry nearest to each code: (M,)."""
        return (self.entries.square().sum(dim=1) - 2 * codes_MF @ self.entries.T).argmin(dim=1)

    def forward(self, codes_BFDHW: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest entry of every code, and its index (M,); in float32 also under autocast."""
        with torch.autocast(codes_BFDHW.device.type, enabled=False):
            moved = codes_BFDHW.detach().to(self.entries.dtype).movedim(1, -1)
            chosen_M = self.nearest(moved.flatten(0, -2))
            return self.entries[chosen_M].view(moved.shape).movedim(-1, 1), chosen_M

    @torch.no_grad()
    def update(self, codes_BFDHW: Tensor, chosen_M: Tensor, rng: np.random.Generator, *, counted: bool = True) -> None:
        """Move entries towards the codes of this batch, and restart unused ones at some of them.

        Args:
            codes_BFDHW: of this rank.
            chosen_M: their entries.
            rng: the same on all ranks.
            counted: False on a rank that has no sample and holds another rank's: its codes are counted there, but entries
                may restart at them here too.
        """
        codes_MF = codes_BFDHW.detach().to(self.entries.dtype).movedim(1, -1).flatten(0, -2)
        # A product and not index_add, which adds in arbitrary order on a GPU.
        which_MK = F.one_hot(chosen_M, len(self.uses)).to(codes_MF.dtype) * counted
        with torch.autocast(codes_MF.device.type, enabled=False):
            uses, sums = which_MK.sum(dim=0), which_MK.T @ codes_MF
        fresh = self._proposals(codes_MF, rng)
        if dist.is_available() and dist.is_initialized():
            for tensor in (uses, sums, fresh):
                dist.all_reduce(tensor)
        self.uses.lerp_(uses, 1 - self._decay)
        self.sums.lerp_(sums, 1 - self._decay)
        even = uses.sum() / len(uses)
        dead = self.uses < DEAD_BELOW * even
        # A restarted entry gets an equal share of uses, so that it is not restarted again at once.
        self.uses.copy_(torch.where(dead, even, self.uses))
        self.sums.copy_(torch.where(dead[:, None], fresh * even, self.sums))
        self.entries.copy_(self.sums / self.uses[:, None])

    def _proposals(self, codes_MF: Tensor, rng: np.random.Generator) -> Tensor:
        """A code for each entry to restart from: this rank's for some entries, 0 for those of other ranks."""
        known = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if known else (0, 1)
        drawn = torch.from_numpy(rng.integers(2**62, size=len(self.uses))).to(codes_MF.device) % len(codes_MF)
        mine = torch.arange(len(self.uses), device=codes_MF.device) % world == rank
        return codes_MF[drawn] * mine[:, None]
