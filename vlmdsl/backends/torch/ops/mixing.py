"""Samples mixed with those of the batch, or of blocks of it, read backwards."""

from __future__ import annotations

from torch import Tensor

from vlmdsl.backends.torch.collectives import mirrored
from vlmdsl.backends.torch.values import Number, precise

__all__ = ["mix"]


def mix(x: Tensor, share: Number, block: int = 0) -> Tensor:
    """`share` times each sample plus the rest times its partner in the batch of all processes read backwards, or in each
    `block` of consecutive samples of it: [b, ...].

    Source: mixup of a batch with its flip, ZeroVL (Cui et al., ECCV 2022).
    """
    return (share * precise(x) + (1.0 - share) * precise(mirrored(x, block))).to(x.dtype)
