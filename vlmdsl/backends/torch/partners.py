"""Partners of samples in reversed blocks of the global batch (see `vlmdsl.ir.blocks`)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["partners"]


def partners(positions: Tensor, samples: int, block: int) -> Tensor:
    """The positions of the partners of those at `positions` in the global batch of `samples`; a `block` of 0 is the whole
    batch."""
    size = block or samples
    start = positions.div(size, rounding_mode="floor") * size
    end = (start + size).clamp(max=samples)
    return start + end - 1 - positions
