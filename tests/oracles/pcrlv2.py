"""The published PCRLv2 3D network and training step, transcribed from their description and written apart from our code.

Source: RL4M/PCRLv2, models/pcrlv2_model_3d.py and train_3d.py lines 86-138, as specified (network table, loss formulas). It
is laid out as that code is: one flat network that always computes everything, one loop over the six local views, a list of
levels per view. It is slow on purpose and shares no line with ``training``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class LUConv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(a, b, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm3d(b)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn1(self.conv1(x)))


class Head(nn.Module):
    """Batch norm of the pooled features, predictor, restoration at one level."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(c)
        self.fc1, self.fcbn, self.fc2 = nn.Linear(c, 2 * c), nn.BatchNorm1d(2 * c), nn.Linear(2 * c, c)
        self.deep, self.deepbn = nn.Conv3d(c, 1, kernel_size=3, padding=1), nn.BatchNorm3d(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, c = x.shape[:2]
        z = self.bn(x.view(b, c, -1).sum(-1) / x[0, 0].numel())
        q = self.fc2(torch.relu(self.fcbn(self.fc1(z))))
        return z, q, torch.sigmoid(self.deepbn(self.deep(x)))


class PCRLv23d(nn.Module):
    """Encoder, decoder without skips, three heads, output."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.a0, self.b0 = LUConv(1, w), LUConv(w, 2 * w)
        self.a1, self.b1 = LUConv(2 * w, 2 * w), LUConv(2 * w, 4 * w)
        self.a2, self.b2 = LUConv(4 * w, 4 * w), LUConv(4 * w, 8 * w)
        self.a3, self.b3 = LUConv(8 * w, 8 * w), LUConv(8 * w, 16 * w)
        self.t2 = nn.ConvTranspose3d(16 * w, 16 * w, kernel_size=2, stride=2)
        self.t1 = nn.ConvTranspose3d(8 * w, 8 * w, kernel_size=2, stride=2)
        self.t0 = nn.ConvTranspose3d(4 * w, 4 * w, kernel_size=2, stride=2)
        self.c2, self.d2 = LUConv(16 * w, 8 * w), LUConv(8 * w, 8 * w)
        self.c1, self.d1 = LUConv(8 * w, 4 * w), LUConv(4 * w, 4 * w)
        self.c0, self.d0 = LUConv(4 * w, 2 * w), LUConv(2 * w, 2 * w)
        self.head2, self.head1, self.head0 = Head(8 * w), Head(4 * w), Head(2 * w)
        self.last = nn.Conv3d(2 * w, 1, kernel_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]], list[Tensor]]:
        pool = nn.functional.max_pool3d
        x = self.b0(self.a0(x))
        x = self.b1(self.a1(pool(x, 2)))
        x = self.b2(self.a2(pool(x, 2)))
        x = self.b3(self.a3(pool(x, 2)))
        f2 = self.d2(self.c2(self.t2(x)))
        f1 = self.d1(self.c1(self.t1(f2)))
        f0 = self.d0(self.c0(self.t0(f1)))
        pairs, restored = [], []
        for head, f, scale in ((self.head2, f2, 4), (self.head1, f1, 2), (self.head0, f0, 1)):
            z, q, r = head(f)
            pairs.append((z, q))
            restored.append(nn.Upsample(scale_factor=scale, mode="trilinear", align_corners=False)(r))
        return torch.sigmoid(self.last(f0)), pairs, restored


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the batch of the cosine, written out."""
    dot = (a * b).sum(1)
    length = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return (dot / length).mean()


def cos_loss(one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]], index: int) -> Tensor:
    """Formula S: both directions, projections detached."""
    (z1, q1), (z2, q2) = one[index], two[index]
    return -0.5 * (cosine(q1, z2.detach()) + cosine(q2, z1.detach()))


def losses(
    net: PCRLv23d, view1: Tensor, view2: Tensor, clean1: Tensor, local: Sequence[Tensor], progress: float, levels: Iterator[int]
) -> dict[str, Tensor]:
    """The four terms of one step.

    Args:
        net: the network, in training mode.
        view1: corrupted, (B, 1, D, H, W).
        view2: corrupted.
        clean1: clean form of view 1.
        local: six local views, (B, 1, d, h, w) each.
        progress: epoch divided by epochs.
        levels: what the random draws give, in the order in which the code draws: global, then for each local view two.
    """
    out1, pairs1, restored1 = net(view1)
    _, pairs2, _ = net(view2)
    index2 = next(levels)
    count = view1.shape[0]
    _, pairs_l, _ = net(torch.cat(list(local)))
    local_loss = torch.zeros((), dtype=view1.dtype)
    for i in range(len(local)):
        part = [(z[i * count : (i + 1) * count], q[i * count : (i + 1) * count]) for z, q in pairs_l]
        local_loss = local_loss + cos_loss(pairs1, part, next(levels))
        local_loss = local_loss + cos_loss(pairs2, part, next(levels))
    beta = 0.5 * (1.0 + math.cos(math.pi * progress))
    return {
        "pixel": (out1 - clean1).pow(2).mean(),
        "semantic": cos_loss(pairs1, pairs2, index2),
        "local": local_loss / (2 * len(local)),
        "scale": beta * (restored1[index2] - clean1).pow(2).mean(),
    }
