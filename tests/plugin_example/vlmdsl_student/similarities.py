"""The whole plug-in: a function of two feature tensors, and what vlmdsl needs to know about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vlmdsl

if TYPE_CHECKING:
    from torch import Tensor


@vlmdsl.primitive(
    laws=("permutation", "swap"),
    formula=r"z_{ij} = -\frac{\nu + 1}{2} \log\left(1 + \frac{\|x_i - y_j\|^2}{\nu}\right)",
    cost="2 B^2 D FLOPs",
)
def student(x: Tensor, y: Tensor, *, freedom: float = 1.0) -> Tensor:
    """The log density of Student's t around the partner: near pairs count as in `euclidean`, far ones much less.

    x [R, D] and y [C, D] give [R, C]; `freedom` is the number of degrees of freedom.
    """
    distance = x.square().sum(1)[:, None] - 2 * x @ y.T + y.square().sum(1)
    return -(freedom + 1) / 2 * (distance.clamp_min(0) / freedom).log1p()
