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
from vlmdsl.backends.torch.values import Gathered, Number, Similarities, Target, precise

__all__ = ["ContrastResult", "Direction", "column_axis", "contrast", "contrast_of", "pooled", "result_of", "row_axis"]

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
    return result_of(views, (rows, columns), _negatives(Similarities(matrix, matrix), rows, columns))


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
    views = (
        View("rows", similarities.rows, _pair(similarities.rows)),
        View("columns", similarities.columns, _pair(similarities.columns)),
    )
    return result_of(views, (rows, columns), _negatives(similarities, rows, columns))


def _pair(matrix: Tensor) -> Tensor:
    return precise(matrix.diagonal(process_index() * matrix.shape[0]))


def result_of(
    views: tuple[View, View],
    directions: tuple[Direction | None, Direction | None],
    negatives: tuple[Negatives | None, Negatives | None],
) -> ContrastResult:
    """The region from the views of its rows and columns and the statistics of their negatives, however computed."""
    losses, accuracies = [], []
    for direction, view, negative in zip(directions, views, negatives, strict=True):
        if direction is not None and negative is not None:
            scale = _scale(direction, view.matrix)
            losses.append(direction.coefficient * _loss(direction, view, scale, negative))
            accuracies.append(mean(_hits(view, scale, negative), direction.over).detach())
    return ContrastResult(torch.stack(losses).sum(), torch.stack(accuracies).mean())


def _hits(view: View, scale: Tensor, negative: Negatives) -> Tensor:
    """1 for each sample whose pair's logit is above all others by more than rounding, which alone tells equal ones apart."""
    positive = view.pair * scale
    rounding = max(torch.finfo(view.matrix.dtype).eps, _ROUNDING)
    return (positive - negative.largest > rounding * positive.abs()).to(negative.largest.dtype)


def _negatives(
    similarities: Similarities, rows: Direction | None, columns: Direction | None
) -> tuple[Negatives | None, Negatives | None]:
    by_row = None if rows is None else row_axis(rows, similarities.rows)
    by_column = None if columns is None else column_axis(columns, similarities.columns)
    if by_row is not None and by_column is not None and similarities.symmetric:
        return negatives_of_both(similarities.rows, by_row, by_column)
    return (
        None if by_row is None else row_negatives(similarities.rows, by_row),
        None if by_column is None else column_negatives(similarities.columns, by_column),
    )


def row_axis(direction: Direction, matrix: Tensor) -> Axis:
    """How the rows read a matrix."""
    scale = _scale(direction, matrix)
    kept = None if direction.keep is None else all_gather(direction.keep)[None, :]
    return Axis(scale.view(-1, 1), kept)


def column_axis(direction: Direction, matrix: Tensor) -> Axis:
    """How the columns read it."""
    scale = _scale(direction, matrix)
    kept = None if direction.keep is None else direction.keep[:, None]
    return Axis((scale if scale.dim() == 0 else all_gather(scale)).view(1, -1), kept)


def _scale(direction: Direction, matrix: Tensor) -> Tensor:
    """The scale in the precision of the statistics: 0-d, or [b] where each sample has its own."""
    if isinstance(direction.scale, Tensor):
        return precise(direction.scale)
    return precise(matrix.new_full((), direction.scale))


def _loss(direction: Direction, view: View, scale: Tensor, negatives: Negatives) -> Tensor:
    """The mean over samples of weight times per-sample loss: 0-d."""
    losses = _per_sample(direction, view, scale, negatives)
    if isinstance(direction.bias, Tensor):
        losses = losses + (direction.bias - direction.bias)  # cancels, but a learned one gets its gradient, 0
    if direction.weight is not None:
        losses = losses * precise(direction.weight)
    return mean(losses, direction.over)


def _per_sample(direction: Direction, view: View, scale: Tensor, negatives: Negatives) -> Tensor:
    """Each sample's p_i r_i - sum_j P_ij A_ij over its candidates: [b]; 0 for a sample without any, or without a target."""
    positive, keep = view.pair * scale, direction.keep
    excess, exists = _excess(direction, positive, negatives.log_sum_exp)
    total, whole, rest = torch.zeros_like(positive), torch.zeros_like(positive), torch.zeros_like(positive)
    kept = None if keep is None else keep.to(positive.dtype)
    for position, part in enumerate(direction.target.parts):
        if part.kind == "paired":
            loss = excess if keep is None else torch.where(keep, excess, 0.0)
            expected = Expectation(torch.ones_like(positive) if kept is None else kept, view.pair)
        else:
            expected = (view.expected or {}).get(position) or expectation(part, view, keep)
            loss = expected.mass * (positive + excess) - scale * expected.similarity
        total = total + part.coefficient * loss
        if keep is not None:
            whole, rest = whole + part.coefficient * expected.whole, rest + part.coefficient * expected.mass
    if keep is not None:
        total = total * renormaliser(whole, rest)
    return total if exists is None else torch.where(exists, total, 0.0)


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
