"""Views of images on the device, from the plans of :mod:`.views_2d`; equal to Pillow and SciPy up to float32 rounding."""

# Axes: B batch, V views of a sample, N = B x V, H height and W width of the source, S side of a view.
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from crossdim.training.data.views.filters_torch import build_gaussian_matrices, normalise
from crossdim.training.data.views.views_2d import BLUR_SIGMA, Plan2D


def build_triangle_matrices(first_N: Tensor, last_N: Tensor, num_pixels_N: Tensor, length: int, side: int) -> Tensor:
    """Build matrices that resize the interval from ``first`` to ``last`` of an axis to ``side`` pixels.

    Pillow's BILINEAR filter: a triangle around the centre of the output pixel, as wide as an output pixel and at least as
    an input pixel; taps outside of the image are cut off, and the rest is normalised to a sum of 1.

    Args:
        first_N: (N,), first edges in pixels, float32, as Pillow holds them.
        last_N: (N,), last edges, likewise.
        num_pixels_N: (N,), how many pixels of the axis are the image; the rest is padding.
        length: L, of the axis with its padding.
        side: S, of the result.

    Returns:
        (N, S, L), float32; rows sum to 1.
    """
    scale_N1 = (last_N - first_N).double()[:, None] / side
    centres_NS = first_N.double()[:, None] + (torch.arange(side, device=first_N.device) + 0.5) * scale_N1
    pixels_L = torch.arange(length, device=first_N.device)
    distance_NSL = (pixels_L + 0.5 - centres_NS[:, :, None]).abs() / scale_N1.clamp_min(1)[:, :, None]
    weights_NSL = (1 - distance_NSL).clamp_min(0) * (pixels_L < num_pixels_N[:, None, None])
    return (weights_NSL / weights_NSL.sum(2, keepdim=True)).to(torch.float32)


def crop_and_resize(images_BHW: Tensor, shapes_B2: Tensor, edges_BV4: Tensor, side: int) -> Tensor:
    """Rectangles of the images, resized to squares; columns first, as Pillow does.

    Args:
        images_BHW: padded to one size.
        shapes_B2: own rows and columns of each image.
        edges_BV4: left, top, right and bottom, pixels.
        side: of the results, pixels.

    Returns:
        (B, V, S, S).
    """
    batch, count = edges_BV4.shape[:2]
    (height, width), edges_N4 = images_BHW.shape[1:], edges_BV4.flatten(0, 1)
    heights_N, widths_N = shapes_B2.repeat_interleave(count, 0).unbind(1)
    columns_NSW = build_triangle_matrices(edges_N4[:, 0], edges_N4[:, 2], widths_N, width, side)
    rows_NSH = build_triangle_matrices(edges_N4[:, 1], edges_N4[:, 3], heights_N, height, side)
    narrow_BHVS = (images_BHW @ columns_NSW.view(batch, count * side, width).mT).view(batch, height, count, side)
    return rows_NSH.view(batch, count, side, height) @ narrow_BHVS.transpose(1, 2)


def rotate_and_flip(images_NSS: Tensor, angle_deg_N: Tensor, flip_N: Tensor) -> Tensor:
    """:func:`.views_2d.rotate_and_flip` of several square images.

    Args:
        images_NSS: unit range.
        angle_deg_N: counter-clockwise.
        flip_N: which images are flipped.

    Returns:
        (N, S, S).
    """
    side = images_NSS.shape[-1]
    from_centre_S = torch.arange(side, device=images_NSS.device, dtype=torch.float64) + 0.5 - side / 2
    x_NS = torch.where(flip_N[:, None], -from_centre_S, from_centre_S)
    cosine, sine = (f(torch.deg2rad(angle_deg_N))[:, None, None] for f in (torch.cos, torch.sin))
    x_N1S, y_S1 = x_NS[:, None], from_centre_S[:, None]
    places_NSS2 = torch.stack([cosine * x_N1S - sine * y_S1, sine * x_N1S + cosine * y_S1], dim=-1)
    # As Pillow: black outside of the area of the pixels; inside, the outermost pixels extend to its edge.
    inside_NSS = ((places_NSS2 >= -side / 2) & (places_NSS2 < side / 2)).all(-1)
    grid = (places_NSS2 / (side / 2)).to(torch.float32)
    sampled = functional.grid_sample(images_NSS[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return sampled * inside_NSS


def adjust_photometry(
    images_NSS: Tensor, blur_sigma_N: Tensor, brightness_N: Tensor, contrast_N: Tensor, *, largest_sigma: float
) -> Tensor:
    """:func:`.views_2d.adjust_photometry` of several square images.

    Args:
        images_NSS: unit range.
        blur_sigma_N: pixels.
        brightness_N: factors.
        contrast_N: factors around the mean.
        largest_sigma: bound of the blur, pixels.

    Returns:
        (N, S, S), unit range.
    """
    blur_NSS = build_gaussian_matrices(blur_sigma_N, images_NSS.shape[-1], largest_sigma)
    lit = (blur_NSS @ images_NSS @ blur_NSS.mT * brightness_N[:, None, None].float()).clamp(0, 1)
    mean = lit.mean(dim=(1, 2), keepdim=True)
    return ((lit - mean) * contrast_N[:, None, None].float() + mean).clamp(0, 1)


def cut_out(images_NSS: Tensor, holes_NK2: Tensor, side: int) -> Tensor:
    """:func:`.views_2d.cut_out` of several square images.

    Args:
        images_NSS: normalised.
        holes_NK2: row and column of the centres.
        side: of the squares, pixels.

    Returns:
        (N, S, S), a copy with holes of zeros.
    """
    pixels_S = torch.arange(images_NSS.shape[-1], device=images_NSS.device)
    first_NK21 = holes_NK2[..., None] - side // 2
    hit_NK2S = (pixels_S >= first_NK21) & (pixels_S < first_NK21 + 2 * (side // 2))
    hole_NSS = (hit_NK2S[:, :, 0, :, None] & hit_NK2S[:, :, 1, None, :]).any(1)
    return images_NSS.masked_fill(hole_NSS, 0)


def make_views_2d(
    images_BHW: Tensor, shapes_B2: Tensor, plan: Plan2D[Tensor], side: int, reference: int, hole_side: int
) -> tuple[Tensor, Tensor]:
    """:func:`.views_2d.make_views_2d` of a batch.

    Args:
        images_BHW: unit range; whatever lies beyond an image's own size is never read.
        shapes_B2: own rows and columns of each image.
        plan: fields (B, V, ...).
        side: of the views, pixels.
        reference: the side for which the blur was published, pixels.
        hole_side: of cut-out squares, pixels.

    Returns:
        Clean and corrupted views, (B, V, S, S) each.
    """
    shape = plan.flip.shape
    clean_NSS = rotate_and_flip(
        crop_and_resize(images_BHW, shapes_B2, plan.edges, side).flatten(0, 1), plan.angle_deg.flatten(), plan.flip.flatten()
    )
    factors = (factor.flatten() for factor in (plan.blur_sigma, plan.brightness, plan.contrast))
    lit_NSS = adjust_photometry(clean_NSS, *factors, largest_sigma=BLUR_SIGMA[1] * side / reference)
    corrupted_NSS = cut_out(normalise(lit_NSS, (1, 2)), plan.holes.flatten(0, 1), hole_side)
    return clean_NSS.view(*shape, side, side), corrupted_NSS.view(*shape, side, side)
