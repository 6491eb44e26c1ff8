"""A fused contrastive region whose similarity matrix is never made: the same loss as `ops.contrast`, from blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import process_count, process_index
from vlmdsl.backends.torch.ops.contrast import ContrastResult, Direction, column_axis, pooled, result_of, row_axis, scales_of
from vlmdsl.backends.torch.ops.expectation import Expectation, Shares, View, shares_of_part
from vlmdsl.backends.torch.ops.statistics import Negatives, across_processes
from vlmdsl.backends.torch.ops.tiled.statistics import block_statistics
from vlmdsl.backends.torch.values import Gathered, precise

__all__ = ["contrast"]

_BY_MATRIX = "dense"
"""The kind of target without a form by features: its matrix exists, and its sums are computed with the blocks."""


def contrast(
    x: Tensor, y: Tensor | Gathered, *, rows: Direction | None = None, columns: Direction | None = None
) -> ContrastResult:
    """The region over this process's features x and y [b, D]; it has no second derivative."""
    y, everybody = pooled(y)
    like = _like(x, y)
    scales = scales_of(rows, columns, like)
    by_row = None if rows is None else row_axis(rows, scales[0])
    by_column = None if columns is None else column_axis(columns, scales[1])
    row_shares, column_shares = _shares(rows, like, "rows"), _shares(columns, like, "columns")
    n, row_largest, k, column_largest, row_sums, column_sums = block_statistics(
        x,
        everybody,
        None if by_row is None else by_row.scale.view(-1, 1),
        None if by_row is None else by_row.kept,
        None if by_column is None else by_column.scale.view(1, -1),
        None if by_column is None else by_column.kept,
        [part.matrix.detach() for part in row_shares.values()],
        [part.matrix.detach() for part in column_shares.values()],
        process_index() * x.shape[0],
    )
    pair = (precise(x) * precise(y)).sum(dim=-1)
    views = (
        View("rows", like, pair, x, y, _expected(row_shares, row_sums)),
        View("columns", like, pair, y, x, _expected(column_shares, column_sums)),
    )
    negatives = (
        None if rows is None else Negatives(n, row_largest.detach()),
        None if columns is None else across_processes(k, column_largest.detach()),
    )
    return result_of(views, (rows, columns), scales, negatives)


def _like(x: Tensor, y: Tensor) -> Tensor:
    """Stands for the matrix [b, B]: its shape, device and dtype, and one number in memory."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    one = x.new_zeros((), dtype=torch.float32 if dtype is torch.float16 else dtype)
    return one.expand(x.shape[0], x.shape[0] * process_count())


def _shares(direction: Direction | None, like: Tensor, along: str) -> dict[int, Shares]:
    """Those parts of a direction's target that are matrices, by their position."""
    parts = () if direction is None else direction.target.parts
    keep = None if direction is None else direction.keep
    return {
        position: shares_of_part(part, precise(like), along, keep)
        for position, part in enumerate(parts)
        if part.kind == _BY_MATRIX
    }


def _expected(shares: dict[int, Shares], sums: Tensor) -> dict[int, Expectation]:
    return {position: part.expectation(sums[index]) for index, (position, part) in enumerate(shares.items())}
