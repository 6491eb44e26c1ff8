"""What outlives a step: each function takes the old state and gives the new one, and changes nothing in place."""

from __future__ import annotations

from torch import Tensor

from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.values import precise

__all__ = ["running_mean"]


def running_mean(before: Tensor, values: Tensor, momentum: float) -> Tensor:
    """`momentum` of the mean so far, and the rest of the mean of `values` [b] over all processes: 0-d, without gradient."""
    return momentum * precise(before) + (1.0 - momentum) * mean(values.detach())
