"""Views of volumes on the device, from the plans of :mod:`.views_3d`; equal to SciPy up to float32 rounding."""

# Axes: B batch, V views of a sample, N = B x V, D depth, H height, W width, T swaps, P voxels of a patch.
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from crossdim.training.data.views.boxes import Side3
from crossdim.training.data.views.filters_torch import build_gaussian_matrices, normalise
from crossdim.training.data.views.views_3d import BLUR_SIGMA, SWAP_PATCH, Corruption


def resample(volumes_BDHW: Tensor, shapes_B3: Tensor, affine_BV34: Tensor, side: Side3) -> Tensor:
    """Views in one linear interpolation; 0 (air) beyond the centres of each volume's own outermost voxels.

    Coordinates are computed in float64, so that the border is where NumPy has it; interpolation is in float32.

    Args:
        volumes_BDHW: padded to one size.
        shapes_B3: own size of each volume, voxels.
        affine_BV34: see :meth:`.views_3d.Placement.affine`.
        side: of a view, voxels (D, H, W).

    Returns:
        (B, V, *side).
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
    # Views of a sample share its volume: they are stacked along the depth of the grid.
    sampled = functional.grid_sample(volumes_BDHW[:, None], grid.flatten(1, 2), padding_mode="border", align_corners=True)
    return (sampled.view(-1, count, *side) * inside).clamp(0, 1)


def blur(views_NDHW: Tensor, sigma_N3: Tensor) -> Tensor:
    """Gaussian blur with a separate width for every view and axis.

    Args:
        views_NDHW: any range.
        sigma_N3: deviations, voxels.

    Returns:
        (N, D, H, W).
    """
    depth, height, width = views_NDHW.shape[1:]
    over_d, over_h, over_w = (
        build_gaussian_matrices(sigma_N3[:, axis], length, BLUR_SIGMA) for axis, length in enumerate((depth, height, width))
    )
    views_NDHW = (over_d @ views_NDHW.flatten(2)).view_as(views_NDHW)
    return over_h[:, None] @ views_NDHW @ over_w[:, None].mT


def draw_noise(seeds_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers, those of each sample from a generator with its own seed. Waits for the device.

    They differ from NumPy's of the same seed, and between kinds of devices, but not between batches, ranks and runs.

    Args:
        seeds_B: (B,), one for each sample.
        shape: (B, ...) of the result.

    Returns:
        Of shape ``shape``, float32, on the device of the seeds.
    """
    noise = torch.empty(shape, device=seeds_B.device)
    generator = torch.Generator(device=seeds_B.device)
    for sample, seed in zip(noise, seeds_B.tolist(), strict=True):
        sample.normal_(generator=generator.manual_seed(seed))
    return noise


def swap_patches(views_NDHW: Tensor, swaps_NT23: Tensor) -> Tensor:
    """Swap pairs of small patches, one pair after the other; each swap is one step for all views together.

    Patches of a pair may overlap each other and those of earlier pairs, so the order matters: the first patch is written
    before the second, as in :func:`.views_3d.swap_patches`. An index of all voxels computed on the CPU would save these
    steps, but would cost the CPU as much as swapping there.

    Args:
        views_NDHW: left as they are.
        swaps_NT23: first voxels of both patches of each swap.

    Returns:
        (N, D, H, W), a copy with swapped patches.
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


def corrupt(views_BVDHW: Tensor, corruption: Corruption[Tensor], noise_BVDHW: Tensor | None = None) -> Tensor:
    """:func:`.views_3d.corrupt` of a batch.

    Args:
        views_BVDHW: clean views.
        corruption: fields (B, V, ...), seeds (B,).
        noise_BVDHW: standard normal numbers; None draws them from the seeds.

    Returns:
        (B, V, D, H, W), each view with mean 0 and deviation 1.
    """
    if noise_BVDHW is None:
        noise_BVDHW = draw_noise(corruption.noise_seed, tuple(views_BVDHW.shape))
    deviation, gamma = (
        factor.flatten().float().view(-1, 1, 1, 1) for factor in (corruption.noise_deviation, corruption.log_gamma.exp())
    )
    views_NDHW = blur(views_BVDHW.flatten(0, 1), corruption.blur_sigma.flatten(0, 1))
    views_NDHW = views_NDHW + noise_BVDHW.flatten(0, 1) * deviation
    views_NDHW = views_NDHW.sign() * views_NDHW.abs() ** gamma
    return normalise(swap_patches(views_NDHW, corruption.swaps.flatten(0, 1)), (1, 2, 3)).view_as(views_BVDHW)
