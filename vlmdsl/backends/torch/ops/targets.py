"""Targets: sums of simple parts that stay unmaterialised as long as nobody asks for the matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, process_count, process_index
from vlmdsl.backends.torch.partners import partners
from vlmdsl.backends.torch.values import Number, Similarities, Target, TargetPart

__all__ = [
    "add_targets",
    "dense_target",
    "flipped",
    "others",
    "pair_positions",
    "paired",
    "same",
    "scale_target",
    "smooth",
    "uniform",
]


def paired() -> Target:
    """1 at (i, i)."""
    return Target((TargetPart("paired"),))


def flipped(block: int = 0) -> Target:
    """1 at each sample's partner in the batch of all processes read backwards, or in each `block` of it."""
    return Target((TargetPart("flipped", block=block),))


def same(label: Tensor, missing: int) -> Target:
    """Equal shares of every sample with the same label; `missing` equals nothing but itself."""
    return Target((TargetPart("same", label=label, missing=missing),))


def uniform() -> Target:
    """1/N everywhere."""
    return Target((TargetPart("uniform"),))


def others() -> Target:
    """1/(N - 1) everywhere but at (i, i)."""
    return Target((TargetPart("others"),))


def smooth(target: Target, epsilon: float, over: str) -> Target:
    """(1 - epsilon) of the target, and epsilon spread evenly over `all` candidates or over the `others`."""
    spread = uniform() if over == "all" else others()
    return add_targets(scale_target(target, 1.0 - epsilon), scale_target(spread, epsilon))


def scale_target(target: Target, factor: Number) -> Target:
    """The target times a number."""
    return Target(tuple(part._replace(coefficient=part.coefficient * factor) for part in target.parts))


def add_targets(left: Target, right: Target) -> Target:
    """The sum of two targets."""
    return Target(left.parts + right.parts)


def dense_target(target: Target, matrix: Tensor) -> Similarities:
    """The target as matrices, one a direction, with the shape and dtype of `matrix`: [b, B], or wider.

    Columns past those that a part speaks of get nothing from it.
    """
    rows, columns = torch.zeros_like(matrix), torch.zeros_like(matrix)
    batch = matrix[:, : matrix.shape[0] * process_count()]
    for part in target.parts:
        dense = _DENSE[part.kind](part, batch)
        rows = rows + part.coefficient * _widened(dense.rows, matrix)
        columns = columns + part.coefficient * _widened(dense.columns, matrix)
    return Similarities(rows, columns)


def _widened(shares: Tensor, matrix: Tensor) -> Tensor:
    return F.pad(shares, (0, matrix.shape[1] - shares.shape[1]))


def pair_positions(matrix: Tensor) -> Tensor:
    """True where row and column of a matrix [b, B] belong to the same sample: [b, B]."""
    own = torch.arange(matrix.shape[0], device=matrix.device) + process_index() * matrix.shape[0]
    return own[:, None] == torch.arange(matrix.shape[1], device=matrix.device)[None, :]


def _both(matrix: Tensor) -> Similarities:
    return Similarities(matrix, matrix)


def _dense_paired(part: TargetPart, matrix: Tensor) -> Similarities:
    return _both(pair_positions(matrix).to(matrix.dtype))


def _dense_flipped(part: TargetPart, matrix: Tensor) -> Similarities:
    columns = torch.arange(matrix.shape[1], device=matrix.device)
    return _both(pair_positions(matrix)[:, partners(columns, matrix.shape[1], part.block)].to(matrix.dtype))


def _dense_same(part: TargetPart, matrix: Tensor) -> Similarities:
    assert part.label is not None
    label, everybody = part.label, all_gather(part.label)
    known = (label != part.missing)[:, None]
    equal = ((label[:, None] == everybody[None, :]) & known) | pair_positions(matrix)
    count = equal.sum(dim=1).to(matrix.dtype)
    shares = equal.to(matrix.dtype)
    return Similarities(shares / count[:, None], shares / all_gather(count)[None, :])


def _dense_uniform(part: TargetPart, matrix: Tensor) -> Similarities:
    return _both(torch.full_like(matrix, 1.0 / matrix.shape[1]))


def _dense_others(part: TargetPart, matrix: Tensor) -> Similarities:
    share = torch.full_like(matrix, 1.0 / max(matrix.shape[1] - 1, 1))
    return _both(share.masked_fill(pair_positions(matrix), 0.0))


def _dense_dense(part: TargetPart, matrix: Tensor) -> Similarities:
    assert part.matrices is not None
    return part.matrices(matrix)


_DENSE: dict[str, Callable[[TargetPart, Tensor], Similarities]] = {
    "paired": _dense_paired,
    "flipped": _dense_flipped,
    "same": _dense_same,
    "uniform": _dense_uniform,
    "others": _dense_others,
    "dense": _dense_dense,
}
