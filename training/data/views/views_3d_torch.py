"""Views of volumes on the device, from the plans of :mod:`.views_3d`; equal to SciPy up to float32 rounding."""

# Axes: B batch, V views of a sample, N = B x V, D depth, H height, W width, T swaps, P voxels of a patch.
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from crossdim.training.data.views.boxes import Side3
from crossdim.training.data.views.filters_torch import build_gaussian_matrices, normalise
from crossdim.training.data.views.resize import build_resize_matrix
from crossdim.training.data.views.views_3d import BLUR_SIGMA, Corruption, swap_patch


def build_resize_matrices(start_N: Tensor, size_N: Tensor, sizes: Sequence[int], length: int, side: int) -> Tensor:
    """Build the matrices that resize intervals of an axis, see :func:`.resize.build_resize_matrix`.

    Args:
        start_N: first voxels.
        size_N: voxels, each one of ``sizes``.
        sizes: every possible size, so that nothing is read from the device.
        length: L, of the axis with its padding.
        side: S, of the result.

    Returns:
        (N, S, L), float32.
    """
    device, possible = start_N.device, sorted({size for size in sizes if size <= length})
    table = torch.zeros(len(possible), side, length)
    for row, size in zip(table, possible, strict=True):
        row[:, :size] = torch.from_numpy(build_resize_matrix(size, side).copy())
    number_N = (size_N[:, None] == torch.tensor(possible, device=device)).to(torch.int64).argmax(1)
    read_NL = torch.arange(length, device=device) - start_N[:, None]
    matrices_NSL = table.to(device)[number_N].gather(2, read_NL.clamp_min(0)[:, None].expand(-1, side, -1))
    return matrices_NSL * (read_NL >= 0)[:, None]


def resize_boxes(volumes_BDHW: Tensor, start_BV3: Tensor, size_BV3: Tensor, sizes: Sequence[Side3], side: Side3) -> Tensor:
    """:func:`.resize.resize_box` of V boxes of every volume.

    Args:
        volumes_BDHW: padded to one size.
        start_BV3: first voxels.
        size_BV3: voxels, each one of ``sizes``; boxes lie in their volumes.
        sizes: every possible size, voxels (D, H, W).
        side: of the results, voxels (D, H, W).

    Returns:
        (B, V, *side).
    """
    batch, count = start_BV3.shape[:2]
    over_d, over_h, over_w = (
        build_resize_matrices(
            start_BV3[..., axis].flatten(), size_BV3[..., axis].flatten(), [size[axis] for size in sizes], length, side[axis]
        )
        for axis, length in enumerate(volumes_BDHW.shape[1:])
    )
    _, height, width = volumes_BDHW.shape[1:]
    # Views of a sample share its volume: along the depth, one product resizes them all.
    flat = over_d.view(batch, count * side[0], -1) @ volumes_BDHW.flatten(2)
    resized = over_h[:, None] @ flat.view(batch * count, side[0], height, width) @ over_w[:, None].mT
    return resized.view(batch, count, *side)


def resample(boxes_BVDHW: Tensor, affine_BV34: Tensor) -> Tensor:
    """:func:`.views_3d.resample` of every resized box.

    Coordinates are computed in float64, so that the border is where NumPy has it; interpolation is in float32.

    Args:
        boxes_BVDHW: resized, unit range.
        affine_BV34: see :meth:`.views_3d.Placement.affine`.

    Returns:
        (B, V, D, H, W).
    """
    side = boxes_BVDHW.shape[2:]
    inside, coordinates = torch.ones((), dtype=torch.bool, device=boxes_BVDHW.device), []
    for axis, length in enumerate(side):
        place = affine_BV34[:, :, axis, 3, None, None, None].clone()
        for along, count in enumerate(side):
            steps = torch.arange(count, device=place.device).view([-1 if a == along else 1 for a in range(3)])
            place = place + affine_BV34[:, :, axis, along, None, None, None] * steps
        inside = inside & (place >= -0.5) & (place <= length - 0.5)
        coordinates.append((2 * place / max(1, length - 1) - 1).to(torch.float32))
    grid = torch.stack(coordinates[::-1], dim=-1)  # grid_sample names the last axis first
    boxes_NCDHW = boxes_BVDHW.flatten(0, 1)[:, None]
    sampled = functional.grid_sample(boxes_NCDHW, grid.flatten(0, 1), padding_mode="border", align_corners=True)
    return torch.where(inside, sampled.view_as(boxes_BVDHW), boxes_BVDHW.amin((2, 3, 4), keepdim=True))


def blur(views_NDHW: Tensor, sigma_N3: Tensor, largest: Sequence[float]) -> Tensor:
    """Gaussian blur with a separate width for every view and axis.

    Args:
        views_NDHW: any range.
        sigma_N3: deviations, voxels.
        largest: bound of the deviations along each axis.

    Returns:
        (N, D, H, W).
    """
    depth, height, width = views_NDHW.shape[1:]
    over_d, over_h, over_w = (
        build_gaussian_matrices(sigma_N3[:, axis], length, largest[axis]) for axis, length in enumerate((depth, height, width))
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


def swap_patches(views_NDHW: Tensor, swaps_NT23: Tensor, patch: Side3) -> Tensor:
    """Swap pairs of small patches, one pair after the other; each swap is one step for all views together.

    Patches of a pair may overlap each other and those of earlier pairs, so the order matters: the first patch is written
    before the second, as in :func:`.views_3d.swap_patches`. An index of all voxels computed on the CPU would save these
    steps, but would cost the CPU as much as swapping there.

    Args:
        views_NDHW: left as they are.
        swaps_NT23: first voxels of both patches of each swap.
        patch: size of the patches, voxels (D, H, W).

    Returns:
        (N, D, H, W), a copy with swapped patches.
    """
    _, height, width = views_NDHW.shape[1:]
    strides = torch.tensor([height * width, width, 1], device=views_NDHW.device)
    offsets_P3 = torch.cartesian_prod(*(torch.arange(n, device=views_NDHW.device) for n in patch))
    voxels_NT2P = (swaps_NT23 * strides).sum(-1)[..., None] + (offsets_P3 * strides).sum(-1)
    flat = views_NDHW.flatten(1).clone()
    for first_NP, second_NP in voxels_NT2P.permute(1, 2, 0, 3):
        was_first, was_second = flat.gather(1, first_NP), flat.gather(1, second_NP)
        flat.scatter_(1, first_NP, was_second).scatter_(1, second_NP, was_first)
    return flat.view_as(views_NDHW)


def corrupt(views_BVDHW: Tensor, corruption: Corruption[Tensor], reference: Side3, noise_BVDHW: Tensor | None = None) -> Tensor:
    """:func:`.views_3d.corrupt` of a batch.

    Args:
        views_BVDHW: clean views.
        corruption: fields (B, V, ...), seeds (B,).
        reference: the side for which the distortions were published, voxels (D, H, W).
        noise_BVDHW: standard normal numbers; None draws them from the seeds.

    Returns:
        (B, V, D, H, W), each view with mean 0 and deviation 1.
    """
    if noise_BVDHW is None:
        noise_BVDHW = draw_noise(corruption.noise_seed, tuple(views_BVDHW.shape))
    deviation, gamma = (
        factor.flatten().float().view(-1, 1, 1, 1) for factor in (corruption.noise_deviation, corruption.log_gamma.exp())
    )
    _, _, depth, height, width = views_BVDHW.shape
    side = depth, height, width
    largest = [BLUR_SIGMA * length / whole for length, whole in zip(side, reference, strict=True)]
    views_NDHW = blur(views_BVDHW.flatten(0, 1), corruption.blur_sigma.flatten(0, 1), largest)
    views_NDHW = views_NDHW + noise_BVDHW.flatten(0, 1) * deviation
    views_NDHW = views_NDHW.sign() * views_NDHW.abs() ** gamma
    swapped = swap_patches(views_NDHW, corruption.swaps.flatten(0, 1), swap_patch(side, reference))
    return normalise(swapped, (1, 2, 3)).view_as(views_BVDHW)
