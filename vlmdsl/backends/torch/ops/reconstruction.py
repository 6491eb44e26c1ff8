"""Pixels as targets: the patches of images, and how far decoded ones are from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.sample_weights import among, mean_of_parts
from vlmdsl.backends.torch.values import precise

__all__ = ["patch_side", "pixels", "reconstruct"]

_VARIANCE_FLOOR = 1e-6
"""Added to the variance of a patch before it divides: MAE's."""


def patch_side(decoded: Tensor) -> int:
    """The side, in pixels, of square RGB patches [b, P, C]. ValueError where C is not 3 times a square."""
    numbers = decoded.shape[2]
    side = math.isqrt(numbers // 3)
    if 3 * side**2 != numbers:
        raise ValueError(f"{numbers} numbers are not those of a square patch with 3 channels")
    return side


def pixels(image: Tensor, patch: int, *, normalised: str = "none") -> Tensor:
    """The patches of images [b, 3, H, W], row by row: [b, P, 3 patch^2], float32 at least, without gradient.

    The numbers of a patch come by row, column and channel. `normalised` is `none`, or `patch`: each patch minus its mean,
    over the root of its unbiased variance plus 1e-6. ValueError where the sides do not divide into patches of `patch`
    pixels. Source: MAE (He et al., 2022), `norm_pix_loss`.

    >>> pixels(torch.arange(12.0).view(1, 3, 2, 2), 1)[0, 0].tolist()
    [0.0, 4.0, 8.0]
    """
    samples, channels, height, width = image.shape
    if height % patch or width % patch:
        raise ValueError(f"images of {height} x {width} pixels do not divide into patches of {patch}")
    grid = precise(image.detach()).reshape(samples, channels, height // patch, patch, width // patch, patch)
    patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(samples, -1, channels * patch**2)
    if normalised == "none":
        return patches
    centred = patches - patches.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    return centred / (variance + _VARIANCE_FLOOR).sqrt()


def reconstruct(
    decoded: Tensor, target: Tensor, at: Tensor, *, where: Tensor | None = None, sample_weight: Tensor | None = None
) -> Tensor:
    """The mean squared error of `decoded` [b, P, C] over the patches of all processes where `at` [b, P] holds: 0-d.

    Every such patch counts alike, so a sample with more of them counts for more; none at all: 0. What stands elsewhere may
    be anything, NaN included. The `target` [b, P, C] gets no gradient. `where` [b] and `sample_weight` [b] say which samples
    count, and how much (`ops.sample_weights`).

    >>> reconstruct(torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), torch.zeros(1, 2, 2), torch.tensor([[True, False]])).item()
    5.0
    """
    at = among(at, where)
    difference = torch.where(at[:, :, None], precise(decoded) - precise(target.detach()), 0.0)
    return mean_of_parts(difference.square().mean(dim=-1), at, sample_weight)
