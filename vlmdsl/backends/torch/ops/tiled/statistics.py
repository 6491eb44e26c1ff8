"""The statistics of `ops/statistics.py`, and sums over targets, from blocks of the similarity matrix that are not kept.

    n_i = log sum_{j != pair} e^{a_i z_ij}    k_j = log sum_{i != pair} e^{c_j z_ij}    t_i = sum_j P_ij z_ij

Four matrix products in all: Z forward; Z again, H Y and H^T X backward. Of the matrices only P outlives a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.tiled.blocks import (
    FeatureGradients,
    block_product,
    blocks,
    refuse_second_derivative,
    rows_of,
)
from vlmdsl.backends.torch.values import precise

__all__ = ["block_statistics"]

_COLUMNS, _ROWS = 0, 1
"""The axis that each direction sums over."""


@torch.library.custom_op("vlmdsl::block_statistics", mutates_args=())
def block_statistics(
    x: Tensor,
    y: Tensor,
    row_scale: Tensor | None,
    row_kept: Tensor | None,
    column_scale: Tensor | None,
    column_kept: Tensor | None,
    row_shares: Sequence[Tensor],
    column_shares: Sequence[Tensor],
    first: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of the products of x [b, D] and y [B, D]: for rows and for columns the log-sum-exp and the largest logit of the
    negatives, then the sums of `row_shares` and of `column_shares`, [b, B] each, times the products: [R, b] and [C, B].

    Scales and kept samples are shaped as in `ops/statistics.py`, but numbers [1, 1]; a direction without a scale gets empty
    tensors. `first` is the column of the pair of row 0. Shares and kept samples have no gradient.
    """
    rows_asked, columns_asked = row_scale is not None, column_scale is not None
    like = precise(x.new_empty(0))
    n, row_largest = (like.new_empty(x.shape[0] if rows_asked else 0) for _ in range(2))
    total, column_largest = (like.new_zeros(y.shape[0] if columns_asked else 0) for _ in range(2))
    column_largest.fill_(-torch.inf)
    row_sums, column_sums = like.new_empty(len(row_shares), x.shape[0]), like.new_zeros(len(column_shares), y.shape[0])
    for rows in blocks(x.shape[0], y.shape[0], x.device):
        z = block_product(x[rows], y)
        for index, shares in enumerate(row_shares):
            row_sums[index, rows] = torch.linalg.vecdot(shares[rows], z)
        for index, shares in enumerate(column_shares):
            column_sums[index] += (shares[rows] * z).sum(dim=0)
        if row_scale is not None:
            logits = _logits(z, row_scale, row_kept, rows, first)
            row_largest[rows] = largest = logits.amax(dim=_ROWS)
            reference = _finite(largest)
            n[rows] = reference + logits.sub_(reference[:, None]).exp_().sum(dim=_ROWS).log()
        if column_scale is not None:
            logits = _logits(z, column_scale, column_kept, rows, first)
            largest = torch.maximum(column_largest, logits.amax(dim=_COLUMNS))
            reference = _finite(largest)
            total *= (column_largest - reference).exp_()
            total += logits.sub_(reference).exp_().sum(dim=_COLUMNS)
            column_largest = largest
    k = _finite(column_largest) + total.log()
    return n, row_largest, k, column_largest, row_sums, column_sums


@block_statistics.register_fake
def _(
    x: Tensor,
    y: Tensor,
    row_scale: Tensor | None,
    row_kept: Tensor | None,
    column_scale: Tensor | None,
    column_kept: Tensor | None,
    row_shares: Sequence[Tensor],
    column_shares: Sequence[Tensor],
    first: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, columns = (0 if row_scale is None else x.shape[0]), (0 if column_scale is None else y.shape[0])
    like = precise(x.new_empty(0))
    sums = like.new_empty(len(row_shares), x.shape[0]), like.new_empty(len(column_shares), y.shape[0])
    return like.new_empty(rows), like.new_empty(rows), like.new_empty(columns), like.new_empty(columns), *sums


@torch.library.custom_op("vlmdsl::block_statistics_gradient", mutates_args=())
def block_statistics_gradient(
    x: Tensor,
    y: Tensor,
    row_scale: Tensor | None,
    row_kept: Tensor | None,
    column_scale: Tensor | None,
    column_kept: Tensor | None,
    row_shares: Sequence[Tensor],
    column_shares: Sequence[Tensor],
    first: int,
    n: Tensor,
    k: Tensor,
    for_n: Tensor,
    for_k: Tensor,
    for_row_sums: Tensor,
    for_column_sums: Tensor,
    for_x: bool,
    for_y: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, y and both scales, empty where none is asked for, from those of n, k and the sums over shares."""
    features = FeatureGradients(x, y, for_x, for_y)
    a_gradient, c_gradient = (
        precise(x.new_empty(0)) if scale is None else torch.zeros_like(scale) for scale in (row_scale, column_scale)
    )
    for rows in blocks(x.shape[0], y.shape[0], x.device):
        z = block_product(x[rows], y)
        h: Tensor | None = None
        if row_scale is not None:
            h = _logits(z, row_scale, row_kept, rows, first)
            h.sub_(_finite(n[rows])[:, None]).exp_().mul_(for_n[rows, None])
            by_row = torch.linalg.vecdot(h, z)[:, None]
            if row_scale.shape[0] > 1:
                a_gradient[rows] = by_row
            else:
                a_gradient += by_row.sum()
            h.mul_(rows_of(row_scale, rows))
        if column_scale is not None:
            v = _logits(z, column_scale, column_kept, rows, first)
            v.sub_(_finite(k)).exp_().mul_(for_k)
            if column_scale.shape[1] > 1:
                c_gradient += (v * z).sum(dim=0)
            else:
                c_gradient += torch.linalg.vecdot(v, z).sum()
            v.mul_(column_scale)
            h = v if h is None else h.add_(v)
        assert h is not None
        for index, shares in enumerate(row_shares):
            h.addcmul_(shares[rows], for_row_sums[index, rows, None])
        for index, shares in enumerate(column_shares):
            h.addcmul_(shares[rows], for_column_sums[index])
        features.add(h, rows)
    return *features.result(), a_gradient, c_gradient


@block_statistics_gradient.register_fake
def _(
    x: Tensor, y: Tensor, row_scale: Tensor | None, _: object, column_scale: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    for_x, for_y = rest[-2:]
    scales = (precise(x.new_empty(0)) if scale is None else torch.empty_like(scale) for scale in (row_scale, column_scale))
    return x.new_empty(x.shape if for_x else 0), y.new_empty(y.shape if for_y else 0), *scales


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y, row_scale, row_kept, column_scale, column_kept, row_shares, column_shares, ctx.first = inputs
    ctx.shares = len(row_shares)
    ctx.save_for_backward(
        x, y, row_scale, row_kept, column_scale, column_kept, output[0], output[2], *row_shares, *column_shares
    )


def _backward(ctx: Any, for_n: Tensor, _row: Tensor, for_k: Tensor, _column: Tensor, *for_sums: Tensor) -> tuple[Any, ...]:
    x, y, row_scale, row_kept, column_scale, column_kept, n, k, *shares = ctx.saved_tensors
    row_shares, column_shares = shares[: ctx.shares], shares[ctx.shares :]
    operands = (x, y, row_scale, row_kept, column_scale, column_kept, row_shares, column_shares, ctx.first)
    x_gradient, y_gradient, a_gradient, c_gradient = block_statistics_gradient(
        *operands, n, k, for_n, for_k, *for_sums, *ctx.needs_input_grad[:2]
    )
    of_x, of_y = (x_gradient if ctx.needs_input_grad[0] else None), (y_gradient if ctx.needs_input_grad[1] else None)
    of_a, of_c = (None if row_scale is None else a_gradient), (None if column_scale is None else c_gradient)
    return of_x, of_y, of_a, None, of_c, None, [None] * len(row_shares), [None] * len(column_shares), None


block_statistics.register_autograd(_backward, setup_context=_setup_context)
refuse_second_derivative(block_statistics_gradient)


def _logits(z: Tensor, scale: Tensor, kept: Tensor | None, rows: slice, first: int) -> Tensor:
    """scale * z of a block, -inf at the pair and where an entry is not a candidate."""
    logits = z * rows_of(scale, rows)
    logits.diagonal(first + rows.start).fill_(-torch.inf)
    return logits if kept is None else logits.masked_fill_(~rows_of(kept, rows), -torch.inf)


def _finite(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).min)
