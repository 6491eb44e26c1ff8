"""Samples mixed with those of the batch read backwards."""

from __future__ import annotations

from torch import Tensor

from vlmdsl.backends.torch.collectives import mirrored
from vlmdsl.backends.torch.values import Number, precise

__all__ = ["mix"]


def mix(x: Tensor, share: Number) -> Tensor:
    """`share` times each sample plus the rest times its partner in the batch of all processes read backwards: [b, ...].

    Source: mixup of a batch with its flip, ZeroVL (Cui et al., ECCV 2022).
    """
    return (share * precise(x) + (1.0 - share) * precise(mirrored(x))).to(x.dtype)
