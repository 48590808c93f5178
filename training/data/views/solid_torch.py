"""Views of volumes on the device, from the plans of :mod:`.solid`; SciPy's arithmetic, to rounding in float32."""

# Axes: B batch, V views of a sample, N = B x V, D depth, H height, W width, T swaps, P voxels of a patch.
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from crossdim.training.data.views.boxes import Side3
from crossdim.training.data.views.filters_torch import gaussian_matrices, normalised
from crossdim.training.data.views.solid import BLUR_SIGMA, SWAP_PATCH, Corruption


def resampled(volumes_BDHW: Tensor, shapes_B3: Tensor, affine_BV34: Tensor, side: Side3) -> Tensor:
    """Views (B, V, *side) in one interpolation: linear; air (0) beyond the centres of each volume's outermost own voxels.

    Places are computed in float64, so that the border is where NumPy sees it; interpolated is in float32.
    """
    inside, coordinates = torch.ones((), dtype=torch.bool, device=volumes_BDHW.device), []
    for axis, padded in enumerate(volumes_BDHW.shape[1:]):
        place = affine_BV34[:, :, axis, 3, None, None, None].clone()
        for along, count in enumerate(side):
            steps = torch.arange(count, device=place.device).view([-1 if a == along else 1 for a in range(3)])
            place = place + affine_BV34[:, :, axis, along, None, None, None] * steps
        inside = inside & (place >= 0) & (place <= shapes_B3[:, axis].view(-1, 1, 1, 1, 1) - 1)
        coordinates.append((2 * place / max(1, padded - 1) - 1).to(torch.float32))
    grid = torch.stack(coordinates[::-1], dim=-1)  # grid_sample names the last axis first
    count = affine_BV34.shape[1]
    # Views of a sample share its volume: they lie one behind the other along the depth of the grid.
    sampled = functional.grid_sample(volumes_BDHW[:, None], grid.flatten(1, 2), padding_mode="border", align_corners=True)
    return (sampled.view(-1, count, *side) * inside).clamp(0, 1)


def blurred(views_NDHW: Tensor, sigma_N3: Tensor) -> Tensor:
    """Gaussian blur with a width of its own for every view and axis."""
    depth, height, width = views_NDHW.shape[1:]
    over_d, over_h, over_w = (
        gaussian_matrices(sigma_N3[:, axis], length, BLUR_SIGMA) for axis, length in enumerate((depth, height, width))
    )
    views_NDHW = (over_d @ views_NDHW.flatten(2)).view_as(views_NDHW)
    return over_h[:, None] @ views_NDHW @ over_w[:, None].mT


def noise_of(seeds_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (B, ...), each sample's from a generator of its own seed. Waits for the device.

    They differ from NumPy's of the same seed, and between kinds of devices; not between batches, ranks and runs.
    """
    noise = torch.empty(shape, device=seeds_B.device)
    generator = torch.Generator(device=seeds_B.device)
    for sample, seed in zip(noise, seeds_B.tolist(), strict=True):
        sample.normal_(generator=generator.manual_seed(seed))
    return noise


def swapped(views_NDHW: Tensor, swaps_NT23: Tensor) -> Tensor:
    """Pairs of small patches exchanged, one pair after the other; each swap is one step for all views together.

    Patches of a pair may overlap each other and those of earlier pairs, so the order matters: the first patch is written
    before the second, as in :func:`crossdim.training.data.views.solid.swapped`. An index of all voxels, worked out beforehand on
    the CPU, would save the steps and cost the CPU as much as swapping there.
    """
    _, height, width = views_NDHW.shape[1:]
    strides = torch.tensor([height * width, width, 1], device=views_NDHW.device)
    offsets_P3 = torch.cartesian_prod(*(torch.arange(n, device=views_NDHW.device) for n in SWAP_PATCH))
    voxels_NT2P = (swaps_NT23 * strides).sum(-1)[..., None] + (offsets_P3 * strides).sum(-1)
    flat = views_NDHW.flatten(1).clone()
    for first_NP, second_NP in voxels_NT2P.permute(1, 2, 0, 3):
        was_first, was_second = flat.gather(1, first_NP), flat.gather(1, second_NP)
        flat.scatter_(1, first_NP, was_second).scatter_(1, second_NP, was_first)
    return flat.view_as(views_NDHW)


def corrupted(views_BVDHW: Tensor, corruption: Corruption[Tensor], noise_BVDHW: Tensor | None = None) -> Tensor:
    """Blur, noise, gamma, swaps, normalisation: :func:`crossdim.training.data.views.solid.corrupted` of a batch.

    Args:
        views_BVDHW: clean views.
        corruption: fields (B, V, ...), seeds (B,).
        noise_BVDHW: standard normal numbers; None draws them from the seeds.
    """
    if noise_BVDHW is None:
        noise_BVDHW = noise_of(corruption.noise_seed, tuple(views_BVDHW.shape))
    deviation, gamma = (
        factor.flatten().float().view(-1, 1, 1, 1) for factor in (corruption.noise_deviation, corruption.log_gamma.exp())
    )
    views_NDHW = blurred(views_BVDHW.flatten(0, 1), corruption.blur_sigma.flatten(0, 1))
    views_NDHW = views_NDHW + noise_BVDHW.flatten(0, 1) * deviation
    views_NDHW = views_NDHW.sign() * views_NDHW.abs() ** gamma
    return normalised(swapped(views_NDHW, corruption.swaps.flatten(0, 1)), (1, 2, 3)).view_as(views_BVDHW)
