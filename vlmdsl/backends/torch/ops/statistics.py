"""Log-sum-exp of a similarity matrix along both axes, from one matrix, with the pair left out.

    A_ij = a_i z_ij,   n_i = log sum_{j != pair} e^{A_ij}        C_ij = c_j z_ij,   k_j = log sum_{i != pair} e^{C_ij}
    H_ij = dL/dz_ij = a_i g_i e^{A_ij - n_i} + c_j h_j e^{C_ij - k_j}        for g = dL/dn, h = dL/dk
    da_i = g_i sum_j e^{A_ij - n_i} z_ij                                     dc_j likewise

The pair is left out because its share of the gradient, 1 - p_ii, is the small difference of two large numbers: outside it is
sigmoid(n_i - A_ii), exact in float32, and the matrix H holds nothing but negatives when it is rounded to bfloat16.

Shape letters: b rows (this process's samples), B columns (everybody's). Scales are [1, 1], or
[b, 1] for rows and [1, B] for columns; `kept` is [1, B] for rows, [b, 1] for columns. An entry that is not a candidate, and
the pair, are -inf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from vlmdsl.backends.torch.collectives import all_reduce_max, all_reduce_sum, own_slice, process_count, process_index
from vlmdsl.backends.torch.ops.targets import pair_positions
from vlmdsl.backends.torch.values import precise

__all__ = ["Axis", "Negatives", "across_processes", "column_negatives", "negatives_of_both", "row_negatives"]

ROWS, COLUMNS = 1, 0
"""The axis that each direction sums over."""


class Axis(NamedTuple):
    """How one direction reads the matrix: its scale, and which samples are candidates (None: all)."""

    scale: Tensor
    kept: Tensor | None = None


class Negatives(NamedTuple):
    """A direction's negatives, [b] each: their log-sum-exp and, without gradient, the largest logit; -inf for none."""

    log_sum_exp: Tensor
    largest: Tensor


def row_negatives(matrix: Tensor, rows: Axis) -> Negatives:
    """The negatives of each row of [b, B]: [b]."""
    log_sum_exp, largest = _RowStatistics.apply(matrix, rows.scale, rows.kept)  # type: ignore[no-untyped-call]
    return Negatives(log_sum_exp, largest.detach())


def column_negatives(matrix: Tensor, columns: Axis) -> Negatives:
    """The negatives of this process's columns, over the rows of all processes: [b]."""
    log_sum_exp, largest = _ColumnStatistics.apply(matrix, columns.scale, columns.kept)  # type: ignore[no-untyped-call]
    return across_processes(log_sum_exp, largest.detach())


def negatives_of_both(matrix: Tensor, rows: Axis, columns: Axis) -> tuple[Negatives, Negatives]:
    """Both of the above from one matrix, whose gradient is made in one sweep."""
    n, row_largest, k, column_largest = _BothStatistics.apply(  # type: ignore[no-untyped-call]
        matrix, rows.scale, rows.kept, columns.scale, columns.kept
    )
    return Negatives(n, row_largest.detach()), across_processes(k, column_largest.detach())


def across_processes(log_sum_exp: Tensor, largest: Tensor) -> Negatives:
    """Join the statistics of all processes over their rows, [B], and keep this process's columns: [b]."""
    if process_count() == 1:
        return Negatives(log_sum_exp, largest)
    reference = _finite(all_reduce_max(log_sum_exp))
    total = own_slice(all_reduce_sum((log_sum_exp - reference).exp()))
    some = total > 0
    joined = torch.where(some, own_slice(reference) + torch.where(some, total, 1.0).log(), -torch.inf)
    return Negatives(joined, own_slice(all_reduce_max(largest)))


class _RowStatistics(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, scale: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        return _statistics(matrix, Axis(scale, kept), ROWS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        matrix, scale, kept, log_sum_exp = ctx.saved_tensors
        weights = _times(_softmax(matrix, Axis(scale, kept), log_sum_exp, ROWS), gradient[:, None])
        scale_gradient = _scale_gradient(weights, matrix, scale)
        return _times(weights, scale).to(matrix.dtype), scale_gradient, None


class _ColumnStatistics(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, scale: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        return _statistics(matrix, Axis(scale, kept), COLUMNS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        matrix, scale, kept, log_sum_exp = ctx.saved_tensors
        weights = _times(_softmax(matrix, Axis(scale, kept), log_sum_exp, COLUMNS), gradient[None, :])
        scale_gradient = _scale_gradient(weights, matrix, scale)
        return _times(weights, scale).to(matrix.dtype), scale_gradient, None


class _BothStatistics(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        matrix: Tensor, a: Tensor, row_kept: Tensor | None, c: Tensor, column_kept: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = _statistics(matrix, Axis(a, row_kept), ROWS)
        return rows + _statistics(matrix, Axis(c, column_kept), COLUMNS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0], output[2])

    @staticmethod
    def backward(
        ctx: Any, row_gradient: Tensor, _row: Tensor, column_gradient: Tensor, _column: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor, None]:
        matrix, a, row_kept, c, column_kept, n, k = ctx.saved_tensors
        row_weights = _times(_softmax(matrix, Axis(a, row_kept), n, ROWS), row_gradient[:, None])
        column_weights = _times(_softmax(matrix, Axis(c, column_kept), k, COLUMNS), column_gradient[None, :])
        a_gradient, c_gradient = _scale_gradient(row_weights, matrix, a), _scale_gradient(column_weights, matrix, c)
        by_row, by_column = _times(row_weights, a), _times(column_weights, c)
        gradient = by_row + by_column if torch.is_grad_enabled() else by_row.add_(by_column)
        return gradient.to(matrix.dtype), a_gradient, None, c_gradient, None


def _times(weights: Tensor, factor: Tensor) -> Tensor:
    """The product, in place unless a second derivative is needed."""
    return weights * factor if torch.is_grad_enabled() else weights.mul_(factor)


def _logits(matrix: Tensor, axis: Axis) -> Tensor:
    """scale * z in float32 at least, -inf at the pair and where an entry is not a candidate: [b, B]."""
    logits = precise(matrix) * axis.scale
    if torch.compiler.is_compiling():  # fuses with its reader; in place it would be a separate pass
        logits = torch.where(pair_positions(matrix), -torch.inf, logits)
    else:
        logits.diagonal(process_index() * matrix.shape[0]).fill_(-torch.inf)
    return logits if axis.kept is None else torch.where(axis.kept, logits, -torch.inf)


def _statistics(matrix: Tensor, axis: Axis, dim: int) -> tuple[Tensor, Tensor]:
    """Log-sum-exp and largest of the logits along `dim`; -inf where there is no candidate."""
    logits = _logits(matrix, axis)
    largest = logits.amax(dim=dim)
    reference = _finite(largest)
    total = logits.sub_(reference.unsqueeze(dim)).exp_().sum(dim=dim)
    return reference + total.log(), largest


def _softmax(matrix: Tensor, axis: Axis, log_sum_exp: Tensor, dim: int) -> Tensor:
    """e^{logit - log-sum-exp}, exactly 0 where there is no candidate: [b, B]."""
    return _logits(matrix, axis).sub_(_finite(log_sum_exp).unsqueeze(dim)).exp_()


def _scale_gradient(weights: Tensor, matrix: Tensor, scale: Tensor) -> Tensor:
    """sum of weights * z over all that one scale multiplies, in the shape of the scale."""
    products = weights * precise(matrix)
    if scale.shape[1] > 1:
        return products.sum(dim=0, keepdim=True)
    by_row = products.sum(dim=1, keepdim=True)  # by rows even for a single scale: that fuses with the sweep that writes H
    return by_row if scale.shape[0] > 1 else by_row.sum(dim=0, keepdim=True)


def _finite(values: Tensor) -> Tensor:
    """-inf, the mark of "no candidate", made 0 so that it can be subtracted."""
    return torch.where(values == -torch.inf, 0.0, values)
