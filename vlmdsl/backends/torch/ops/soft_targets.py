"""Targets that are made of an affinity [b, B] over the global batch, in float32 at least. An affinity brings no gradient.

An entry that is not a candidate gets nothing; a row, or column, without candidates is a target of zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import process_count
from vlmdsl.backends.torch.ops.candidates import candidates_of, log_sum_exp_of
from vlmdsl.backends.torch.values import Similarities, Target, TargetPart, precise

__all__ = ["sinkhorn", "softmax", "transport"]

ROWS, COLUMNS = 1, 0
"""The axis that the entries of a row, or of a column, are summed over."""


def softmax(affinity: Similarities) -> Target:
    """Each row's softmax over its candidates for the row direction, each column's for the column direction."""
    return _each_direction(affinity, epsilon=1.0, iterations=0)


def transport(affinity: Similarities, epsilon: float, iterations: int) -> Target:
    """The entropic transport plan between samples of equal weight, each row scaled to 1 at last; mirrored for columns."""
    return _each_direction(affinity, epsilon, iterations)


def sinkhorn(logarithm: Tensor, counted: Tensor, iterations: int, first: int, second: int) -> Tensor:
    """The plan of `e^logarithm` [b, B] on its counted entries: sums along the axis `first` are scaled to 1, then those along
    `second`, so many times, and at last those along `first`.

    Source: Sinkhorn's algorithm in the log domain; Cuturi, NeurIPS 2013.
    """
    for _ in range(iterations):
        for axis in (first, second):
            logarithm = logarithm - log_sum_exp_of(logarithm, counted, axis)[0]
    total, exists = log_sum_exp_of(logarithm, counted, first)
    return torch.where(counted & exists, (logarithm - total).exp(), 0.0)


def _each_direction(affinity: Similarities, epsilon: float, iterations: int) -> Target:
    rows = _plan(affinity, "rows", epsilon, iterations)
    square = affinity.rows.shape[1] == affinity.rows.shape[0] * process_count()  # else columns stand side by side
    plans = Similarities(rows, _plan(affinity, "columns", epsilon, iterations) if square else rows)
    return Target((TargetPart("dense", matrices=lambda like: plans),))


def _plan(affinity: Similarities, along: str, epsilon: float, iterations: int) -> Tensor:
    matrix = precise(affinity.rows if along == "rows" else affinity.columns) / epsilon
    axes = (ROWS, COLUMNS) if along == "rows" else (COLUMNS, ROWS)
    return sinkhorn(matrix, candidates_of(affinity, matrix, along), iterations, *axes)
