"""Targets: sums of simple parts, whose matrix is made only if it is needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_sum, process_count, process_index
from vlmdsl.backends.torch.partners import partners
from vlmdsl.backends.torch.values import Memory, Number, Similarities, Target, TargetPart

__all__ = [
    "add_targets",
    "dense_target",
    "flipped",
    "others",
    "pair_positions",
    "paired",
    "renormaliser",
    "same",
    "scale_target",
    "shares_of",
    "smooth",
    "uniform",
]


def paired() -> Target:
    """1 at (i, i)."""
    return Target((TargetPart("paired"),))


def flipped(block: int = 0) -> Target:
    """1 at each sample's partner in the batch of all processes read backwards, or in each `block` of it."""
    return Target((TargetPart("flipped", block=block),))


def same(label: Tensor, missing: int, earlier: Memory | None = None) -> Target:
    """Equal shares of every sample with the same label, and of the entries of a memory that have it, which stand behind;
    `missing` equals nothing but itself."""
    return Target((TargetPart("same", label=label, missing=missing, earlier=earlier),))


def uniform() -> Target:
    """1/N everywhere."""
    return Target((TargetPart("uniform"),))


def others() -> Target:
    """1/(N - 1) everywhere but at (i, i)."""
    return Target((TargetPart("others"),))


def smooth(target: Target, epsilon: Number, over: str) -> Target:
    """(1 - epsilon) of the target, and epsilon spread evenly over `all` candidates or over the `others`; epsilon is a number
    or one per sample [b]."""
    spread = uniform() if over == "all" else others()
    return add_targets(scale_target(target, 1.0 - epsilon), scale_target(spread, epsilon))


def scale_target(target: Target, factor: Number) -> Target:
    """The target times a number, or each sample's own, in both directions, times one of its own [b]."""
    return Target(tuple(part._replace(coefficient=part.coefficient * factor) for part in target.parts))


def add_targets(left: Target, right: Target) -> Target:
    """The sum of two targets."""
    return Target(left.parts + right.parts)


def dense_target(target: Target, matrix: Tensor) -> Similarities:
    """The target as matrices, one per direction, in the dtype of `matrix`: [b, B], or of the target's own width.

    `matrix` is one that the target may speak of: that of the samples of the batch stands first in it.
    """
    first, *others = (_scaled(part, matrix) for part in target.parts)
    for other in others:
        rows, symmetric = first.rows + other.rows, first.symmetric and other.symmetric
        first = Similarities(rows, rows if symmetric else first.columns + other.columns)
    return first


def _scaled(part: TargetPart, matrix: Tensor) -> Similarities:
    """One part times its coefficient."""
    dense = _DENSE[part.kind](part, matrix)
    if isinstance(part.coefficient, float) and part.coefficient == 1.0:
        return dense
    if isinstance(part.coefficient, Tensor) and part.coefficient.dim() == 1:
        shares = part.coefficient.to(dense.rows.dtype)
        return Similarities(shares[:, None] * dense.rows, all_gather(shares)[None, :] * dense.columns)
    rows = part.coefficient * dense.rows
    return Similarities(rows, rows if dense.symmetric else part.coefficient * dense.columns)


def shares_of(target: Target, matrix: Tensor, along: str, candidates: Tensor | None) -> Tensor:
    """What each row, or each column, of `matrix` should choose: its shape; `candidates` (None: all) are its true entries.

    Columns past those that the target speaks of get nothing. What falls on an entry that is not a candidate goes to the
    others in proportion to their shares; a row to which nothing is left has no target: zeros.
    """
    dense = dense_target(target, matrix)
    shares = dense.rows if along == "rows" else dense.columns
    if shares.shape[1] != matrix.shape[1]:
        shares = F.pad(shares, (0, matrix.shape[1] - shares.shape[1]))
    if candidates is None:
        return shares
    kept, dim = torch.where(candidates, shares, 0.0), 1 if along == "rows" else 0
    whole, rest = shares.sum(dim=dim), kept.sum(dim=dim)
    if along == "columns":
        whole, rest = all_reduce_sum(torch.stack([whole, rest])).unbind()
    return kept * renormaliser(whole, rest).unsqueeze(dim)


def renormaliser(whole: Number, rest: Tensor) -> Tensor:
    """What multiplies the `rest` of a target of the mass `whole` so that it has that mass again; 0 where nothing is left."""
    left = rest != 0
    return torch.where(left, whole / torch.where(left, rest, 1.0), 0.0)


def pair_positions(matrix: Tensor) -> Tensor:
    """True where row and column of a matrix [b, B] belong to the same sample: [b, B]."""
    own = torch.arange(matrix.shape[0], device=matrix.device) + process_index() * matrix.shape[0]
    return own[:, None] == torch.arange(matrix.shape[1], device=matrix.device)[None, :]


def _both(matrix: Tensor) -> Similarities:
    return Similarities(matrix, matrix)


def _batch(matrix: Tensor) -> Tensor:
    """The columns of the batch's samples: [b, B]."""
    return matrix[:, : matrix.shape[0] * process_count()]


def _dense_paired(part: TargetPart, matrix: Tensor) -> Similarities:
    matrix = _batch(matrix)
    return _both(pair_positions(matrix).to(matrix.dtype))


def _dense_flipped(part: TargetPart, matrix: Tensor) -> Similarities:
    matrix = _batch(matrix)
    columns = torch.arange(matrix.shape[1], device=matrix.device)
    return _both(pair_positions(matrix)[:, partners(columns, matrix.shape[1], part.block)].to(matrix.dtype))


def _dense_same(part: TargetPart, matrix: Tensor) -> Similarities:
    assert part.label is not None
    matrix, label, everybody = _batch(matrix), part.label, all_gather(part.label)
    labelled = (label != part.missing)[:, None]
    equal = ((label[:, None] == everybody[None, :]) & labelled) | pair_positions(matrix)
    if part.earlier is not None:
        of_class = (label[:, None] == part.earlier.values[None, :]) & labelled & part.earlier.filled[None, :]
        shares = torch.cat([equal, of_class], dim=1).to(matrix.dtype)
        return _both(shares / shares.sum(dim=1, keepdim=True))
    count = equal.sum(dim=1).to(matrix.dtype)
    shares = equal.to(matrix.dtype)
    return Similarities(shares / count[:, None], shares / all_gather(count)[None, :])


def _dense_uniform(part: TargetPart, matrix: Tensor) -> Similarities:
    matrix = _batch(matrix)
    return _both(torch.full_like(matrix, 1.0 / matrix.shape[1]))


def _dense_others(part: TargetPart, matrix: Tensor) -> Similarities:
    matrix = _batch(matrix)
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
