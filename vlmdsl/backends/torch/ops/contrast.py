"""A contrastive region, dense: one similarity matrix, both directions, all targets and weights (`ir/contrast.py`).

    L = sum over directions of  coefficient * mean_i  u_i ( p_i r_i - sum_j P_ij A_ij ),    A_ij = a_i z_ij + bias,
    r_i = log sum_j e^{A_ij},   p_i = sum_j P_ij,   j over the candidates of i, among which each row of P is renormalised

With the negatives' log-sum-exp n_i (`statistics`) and the pair's logit A_ii at hand, the paired part of a target costs
r_i - A_ii = softplus(n_i - A_ii), which is exact however small it is, and r_i = A_ii + softplus(n_i - A_ii). The bias moves
all logits alike and cancels.

Three matrix products in all: Z forward, H Y and H^T X backward. Of the features only y is gathered; the statistics of the
columns are joined over processes; the sums that targets need are vectors of length D (`expectation`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, process_index
from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.ops.expectation import Expectation, View, expectation
from vlmdsl.backends.torch.ops.product import product
from vlmdsl.backends.torch.ops.statistics import Axis, Negatives, column_negatives, negatives_of_both, row_negatives
from vlmdsl.backends.torch.ops.targets import renormaliser
from vlmdsl.backends.torch.values import Gathered, Number, Similarities, Target, precise, times, total

__all__ = [
    "ContrastResult", "Direction", "column_axis", "contrast", "contrast_of", "pooled", "result_of", "row_axis", "scales_of",
]  # fmt: skip

_SOFTPLUS_THRESHOLD = 40.0
"""Beyond it log(1 + e^x) is x in float64 too."""
_ROUNDING = 1e-5
"""How much two sums of some thousand products in float32 may differ, as a share."""


class Direction(NamedTuple):
    """One direction of the region; fields as in `ir.Direction`, with tensors [b] or 0-d in place of inputs."""

    coefficient: float
    target: Target
    scale: Number = 1.0
    bias: Number | None = None
    weight: Tensor | None = None
    over: Tensor | None = None
    keep: Tensor | None = None
    without_positive: bool = False


class ContrastResult(NamedTuple):
    """The region's loss, and how often a sample's own pair is its largest logit (mean of the directions, no gradient)."""

    loss: Tensor
    accuracy: Tensor


def contrast(
    x: Tensor, y: Tensor | Gathered, *, rows: Direction | None = None, columns: Direction | None = None
) -> ContrastResult:
    """The region over this process's features x and y [b, D]: it owns the matrix product."""
    y, everybody = pooled(y)
    matrix = product(x, everybody)
    pair = (precise(x) * precise(y)).sum(dim=-1)
    views = View("rows", matrix, pair, x, y), View("columns", matrix, pair, y, x)
    scales = scales_of(rows, columns, matrix)
    return result_of(views, (rows, columns), scales, _negatives(Similarities(matrix, matrix), (rows, columns), scales))


def pooled(y: Tensor | Gathered) -> tuple[Tensor, Tensor]:
    """This process's features [b, D] and those of all processes [B, D]."""
    own, everybody = y if isinstance(y, Gathered) else (y, all_gather(y))
    assert isinstance(own, Tensor)
    assert isinstance(everybody, Tensor)
    return own, everybody


def contrast_of(
    similarities: Similarities, *, rows: Direction | None = None, columns: Direction | None = None
) -> ContrastResult:
    """The region over an existing similarity, possibly with two matrices (tokenmax)."""
    pair = _pair(similarities.rows)
    column_pair = pair if similarities.symmetric else _pair(similarities.columns)
    views = View("rows", similarities.rows, pair), View("columns", similarities.columns, column_pair)
    scales = scales_of(rows, columns, similarities.rows)
    return result_of(views, (rows, columns), scales, _negatives(similarities, (rows, columns), scales))


def _pair(matrix: Tensor) -> Tensor:
    return precise(matrix.diagonal(process_index() * matrix.shape[0]))


def scales_of(rows: Direction | None, columns: Direction | None, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of each direction in the precision of the statistics: 0-d, or [b] where each sample has its own. It is one
    tensor where the directions share it, and of a missing direction that of the other one."""
    by_row = 1.0 if rows is None else rows.scale
    by_column = by_row if columns is None else columns.scale
    by_row = by_column if rows is None else by_row
    scale = _scale(by_row, matrix)
    return scale, scale if by_column is by_row else _scale(by_column, matrix)


def _scale(scale: Number, matrix: Tensor) -> Tensor:
    return precise(scale if isinstance(scale, Tensor) else matrix.new_full((), scale))


def result_of(
    views: tuple[View, View],
    directions: tuple[Direction | None, Direction | None],
    scales: tuple[Tensor, Tensor],
    negatives: tuple[Negatives | None, Negatives | None],
) -> ContrastResult:
    """The region from the views of its rows and columns and the statistics of their negatives, however computed."""
    losses, accuracies = [], []
    for direction, view, positive, negative in zip(directions, views, _positives(views, scales), negatives, strict=True):
        if direction is not None and negative is not None:
            losses.append(times(_loss(direction, view, positive, negative), direction.coefficient))
            hits = negative.largest < positive.bound
            accuracies.append(mean(hits.to(negative.largest.dtype), direction.over))
    return ContrastResult(total(losses), total(accuracies) / len(accuracies))


class _Positive(NamedTuple):
    """Of a direction the scale, 0-d or [b], the logits of the pairs, [b], and the `bound`, [b], without gradient: a sample's
    pair has the largest logit if all others are below it by more than rounding, which alone tells equal ones apart."""

    scale: Tensor
    logit: Tensor
    bound: Tensor


def _positives(views: tuple[View, View], scales: tuple[Tensor, Tensor]) -> tuple[_Positive, _Positive]:
    """Those of the rows and of the columns, computed once where they are the same."""
    (rows, columns), (row_scale, column_scale) = views, scales
    by_row = _positive(rows, row_scale)
    same = columns.pair is rows.pair and column_scale is row_scale
    return by_row, by_row if same else _positive(columns, column_scale)


def _positive(view: View, scale: Tensor) -> _Positive:
    logit = view.pair * scale
    own = logit.detach()
    return _Positive(scale, logit, own - max(torch.finfo(view.matrix.dtype).eps, _ROUNDING) * own.abs())


def _negatives(
    similarities: Similarities, directions: tuple[Direction | None, Direction | None], scales: tuple[Tensor, Tensor]
) -> tuple[Negatives | None, Negatives | None]:
    (rows, columns), (row_scale, column_scale) = directions, scales
    by_row = None if rows is None else row_axis(rows, row_scale)
    by_column = None if columns is None else column_axis(columns, column_scale)
    if by_row is not None and by_column is not None and similarities.symmetric:
        return negatives_of_both(similarities.rows, by_row, by_column)
    return (
        None if by_row is None else row_negatives(similarities.rows, by_row),
        None if by_column is None else column_negatives(similarities.columns, by_column),
    )


def row_axis(direction: Direction, scale: Tensor) -> Axis:
    """How the rows read a matrix."""
    kept = None if direction.keep is None else all_gather(direction.keep)[None, :]
    return Axis(scale.view(-1, 1) if scale.dim() else scale, kept)


def column_axis(direction: Direction, scale: Tensor) -> Axis:
    """How the columns read it."""
    kept = None if direction.keep is None else direction.keep[:, None]
    return Axis(all_gather(scale).view(1, -1) if scale.dim() else scale, kept)


def _loss(direction: Direction, view: View, positive: _Positive, negatives: Negatives) -> Tensor:
    """The mean over samples of weight times per-sample loss: 0-d."""
    losses = _per_sample(direction, view, positive, negatives)
    if isinstance(direction.bias, Tensor):
        losses = losses + (direction.bias - direction.bias)  # cancels, but a learned one gets its gradient, 0
    if direction.weight is not None:
        losses = losses * precise(direction.weight)
    return mean(losses, direction.over)


def _per_sample(direction: Direction, view: View, positive: _Positive, negatives: Negatives) -> Tensor:
    """Each sample's p_i r_i - sum_j P_ij A_ij over its candidates: [b]; 0 for a sample without any, or without a target."""
    parts, keep = direction.target.parts, direction.keep
    excess, exists = _excess(direction, positive.logit, negatives.log_sum_exp)
    expected = [
        None if part.kind == "paired" else (view.expected or {}).get(position) or expectation(part, view, keep)
        for position, part in enumerate(parts)
    ]
    of_parts = [_of_part(own, positive, excess, keep) for own in expected]
    losses = total([times(loss, part.coefficient) for loss, part in zip(of_parts, parts, strict=True)])
    if keep is not None:
        kept, of_each = keep.to(losses.dtype), list(zip(expected, parts, strict=True))
        whole = total([part.coefficient * (1.0 if own is None else own.whole) for own, part in of_each])
        rest = total([part.coefficient * (kept if own is None else own.mass) for own, part in of_each])
        losses = losses * renormaliser(whole, rest)
    return losses if exists is None else torch.where(exists, losses, 0.0)


def _of_part(expected: Expectation | None, positive: _Positive, excess: Tensor, keep: Tensor | None) -> Tensor:
    """Each sample's loss for one part of its target, its coefficient apart; None is expected of the pair alone."""
    if expected is not None:
        return expected.mass * (positive.logit + excess) - positive.scale * expected.similarity
    return excess if keep is None else torch.where(keep, excess, 0.0)


def _excess(direction: Direction, positive: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor | None]:
    """r_i - A_ii, and which samples have a candidate at all (None: all); the excess of the others is 0."""
    with_pair = F.softplus(negatives - positive, threshold=_SOFTPLUS_THRESHOLD)
    if direction.keep is None and not direction.without_positive:
        return with_pair, None
    some = negatives > -torch.inf
    without_pair = torch.where(some, negatives, positive) - positive
    if direction.keep is None or direction.without_positive:
        return without_pair, some
    return torch.where(direction.keep, with_pair, without_pair), some | direction.keep
