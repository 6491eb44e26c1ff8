"""Log-sum-exp of a similarity matrix along both axes, from one matrix, with the pair left out.

    A_ij = a_i z_ij,   n_i = log sum_{j != pair} e^{A_ij}        C_ij = c_j z_ij,   k_j = log sum_{i != pair} e^{C_ij}
    H_ij = dL/dz_ij = a_i g_i e^{A_ij - n_i} + c_j h_j e^{C_ij - k_j}        for g = dL/dn, h = dL/dk
    da_i = g_i sum_j e^{A_ij - n_i} z_ij                                     dc_j likewise; of one number a = c their sum

The pair is left out because its share of the gradient, 1 - p_ii, is the small difference of two large numbers: outside it is
sigmoid(n_i - A_ii), exact in float32, and the matrix H holds nothing but negatives when it is rounded to bfloat16.

Shape letters: b rows (this process's samples), B columns (everybody's). Scales are 0-d, or
[b, 1] for rows and [1, B] for columns; `kept` is [1, B] for rows, [b, 1] for columns. An entry that is not a candidate, and
the pair, are -inf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_reduce_max, all_reduce_sum, own_slice, process_count, process_index
from vlmdsl.backends.torch.functions import Function
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
    log_sum_exp, largest = _RowStatistics.apply(matrix, rows.scale, rows.kept)
    return Negatives(log_sum_exp, largest.detach())


def column_negatives(matrix: Tensor, columns: Axis) -> Negatives:
    """The negatives of this process's columns, over the rows of all processes: [b]."""
    log_sum_exp, largest = _ColumnStatistics.apply(matrix, columns.scale, columns.kept)
    return across_processes(log_sum_exp, largest.detach())


def negatives_of_both(matrix: Tensor, rows: Axis, columns: Axis) -> tuple[Negatives, Negatives]:
    """Both of the above from one matrix, whose gradient is made in one sweep; the axes may have one scale."""
    column_scale = None if columns.scale is rows.scale else columns.scale
    n, row_largest, k, column_largest = _BothStatistics.apply(matrix, rows.scale, rows.kept, column_scale, columns.kept)
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
        return _statistics(_logits(matrix, scale, kept), ROWS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        matrix, scale, kept, log_sum_exp = ctx.saved_tensors
        weights = _times(_softmax(_logits(matrix, scale, kept), log_sum_exp, ROWS), gradient[:, None])
        scale_gradient = _scale_gradient(weights, matrix, scale)
        return _times(weights, scale).to(matrix.dtype), scale_gradient, None


class _ColumnStatistics(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, scale: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        return _statistics(_logits(matrix, scale, kept), COLUMNS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        matrix, scale, kept, log_sum_exp = ctx.saved_tensors
        weights = _times(_softmax(_logits(matrix, scale, kept), log_sum_exp, COLUMNS), gradient[None, :])
        scale_gradient = _scale_gradient(weights, matrix, scale)
        return _times(weights, scale).to(matrix.dtype), scale_gradient, None


class _BothStatistics(Function):
    """Without `c` both directions are multiplied by `a`, a number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        matrix: Tensor, a: Tensor, row_kept: Tensor | None, c: Tensor | None, column_kept: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        by_row, by_column = _logits_of_both(matrix, a, row_kept, c, column_kept)
        return _statistics(by_row, ROWS, keep=by_row is by_column) + _statistics(by_column, COLUMNS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0], output[2])

    @staticmethod
    def backward(
        ctx: Any, row_gradient: Tensor, _row: Tensor, column_gradient: Tensor, _column: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor | None, None]:
        matrix, a, row_kept, c, column_kept, n, k = ctx.saved_tensors
        by_row, by_column = _logits_of_both(matrix, a, row_kept, c, column_kept)
        row_weights = _times(_softmax(by_row, n, ROWS, keep=by_row is by_column), row_gradient[:, None])
        column_weights = _times(_softmax(by_column, k, COLUMNS), column_gradient[None, :])
        if c is None:
            weights = _plus(row_weights, column_weights)
            scale_gradient = _scale_gradient(weights, matrix, a)
            return _times(weights, a).to(matrix.dtype), scale_gradient, None, None, None
        a_gradient, c_gradient = _scale_gradient(row_weights, matrix, a), _scale_gradient(column_weights, matrix, c)
        gradient = _plus(_times(row_weights, a), _times(column_weights, c))
        return gradient.to(matrix.dtype), a_gradient, None, c_gradient, None


def _times(weights: Tensor, factor: Tensor) -> Tensor:
    """The product, in place unless a second derivative is needed."""
    return weights * factor if torch.is_grad_enabled() else weights.mul_(factor)


def _plus(weights: Tensor, others: Tensor) -> Tensor:
    """The sum, in place unless a second derivative is needed."""
    return weights + others if torch.is_grad_enabled() else weights.add_(others)


def _logits_of_both(
    matrix: Tensor, a: Tensor, row_kept: Tensor | None, c: Tensor | None, column_kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The logits of the rows and of the columns, one matrix where they are equal."""
    by_row = _scaled(matrix, a)
    by_column = by_row if c is None else _scaled(matrix, c)
    return _candidates(by_row, row_kept), _candidates(by_column, column_kept)


def _logits(matrix: Tensor, scale: Tensor, kept: Tensor | None) -> Tensor:
    """The logits of one direction: [b, B]."""
    return _candidates(_scaled(matrix, scale), kept)


def _scaled(matrix: Tensor, scale: Tensor) -> Tensor:
    """scale * z in float32 at least, -inf at the pair: [b, B]."""
    logits = precise(matrix) * scale
    if torch.compiler.is_compiling():  # fuses with its reader; in place it would be a separate pass
        return torch.where(pair_positions(matrix), -torch.inf, logits)
    logits.diagonal(process_index() * matrix.shape[0]).fill_(-torch.inf)
    return logits


def _candidates(logits: Tensor, kept: Tensor | None) -> Tensor:
    """The logits, -inf where an entry is not a candidate."""
    return logits if kept is None else torch.where(kept, logits, -torch.inf)


def _statistics(logits: Tensor, dim: int, *, keep: bool = False) -> tuple[Tensor, Tensor]:
    """Log-sum-exp and largest of the logits along `dim`; -inf where there is no candidate."""
    largest = logits.amax(dim=dim)
    reference = _finite(largest)
    return reference + _exponentials(logits, reference, dim, keep=keep).sum(dim=dim).log(), largest


def _softmax(logits: Tensor, log_sum_exp: Tensor, dim: int, *, keep: bool = False) -> Tensor:
    """e^{logit - log-sum-exp}, exactly 0 where there is no candidate: [b, B]."""
    return _exponentials(logits, _finite(log_sum_exp), dim, keep=keep)


def _exponentials(logits: Tensor, reference: Tensor, dim: int, *, keep: bool) -> Tensor:
    """e^{logit - reference}, in the memory of the logits unless they are to be kept."""
    reference = reference.unsqueeze(dim)
    return (logits - reference if keep else logits.sub_(reference)).exp_()


def _scale_gradient(weights: Tensor, matrix: Tensor, scale: Tensor) -> Tensor:
    """sum of weights * z over all that one scale multiplies, in the shape of the scale."""
    products = weights * precise(matrix)
    if scale.dim():
        return products.sum(dim=0 if scale.shape[1] > 1 else 1, keepdim=True)
    # Compiled by rows first: that fuses with the sweep that writes H.
    return products.sum(dim=1).sum() if torch.compiler.is_compiling() else products.sum()


def _finite(values: Tensor) -> Tensor:
    """-inf, the mark of "no candidate", made a number, so that it can be subtracted: the lowest one."""
    return values.clamp_min(torch.finfo(values.dtype).min)
