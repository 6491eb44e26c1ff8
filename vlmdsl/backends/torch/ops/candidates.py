"""Which entries are candidates, and the columns of several matrices side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_max, all_reduce_sum
from vlmdsl.backends.torch.ops.targets import dense_target, pair_positions
from vlmdsl.backends.torch.values import Memory, Similarities, Target, TargetPart

__all__ = ["candidates_of", "exclude_own", "exclude_pairs", "log_sum_exp_of", "unite", "unite_targets"]


def exclude_pairs(matrix: Similarities) -> Similarities:
    """The same similarities; the entry of a sample with itself is not a candidate in either direction."""
    others = ~pair_positions(matrix.rows)
    return matrix._replace(allowed=others if matrix.allowed is None else matrix.allowed & others)


def exclude_own(matrix: Similarities, key: Tensor, keys: Memory) -> Similarities:
    """The same similarities to the entries of a memory; those that are of the sample itself, by the keys [b] of samples and
    `keys` [Q] of entries, are not candidates."""
    others = key[:, None] != keys.values[None, :]
    return matrix._replace(allowed=others if matrix.allowed is None else matrix.allowed & others)


def unite(x: Similarities, y: Similarities) -> Similarities:
    """The columns of y after those of x: [b, N + M]. There is no column direction."""
    rows = torch.cat([x.rows, y.rows], dim=1)
    allowed = None
    if not (x.complete and y.complete):
        allowed = torch.cat([candidates_of(x, x.rows, "rows"), candidates_of(y, y.rows, "rows")], dim=1)
    return Similarities(rows, rows, None, allowed)


def unite_targets(x: Target, y: Target) -> Target:
    """The columns of y after those of x."""

    def matrices(like: Tensor) -> Similarities:
        both = torch.cat([dense_target(x, like).rows, dense_target(y, like).rows], dim=1)
        return Similarities(both, both)

    return Target((TargetPart("dense", matrices=matrices),))


def candidates_of(logits: Similarities, matrix: Tensor, along: str) -> Tensor:
    """True where an entry is a candidate of its row (or of its column): [b, N], or [b, Q] of a memory."""
    if logits.candidates is None:
        kept = torch.ones_like(matrix, dtype=torch.bool)
    else:
        kept = all_gather(logits.candidates)[None, :] if along == "rows" else logits.candidates[:, None]
        kept = kept.expand(matrix.shape)
    if logits.filled is not None:
        kept = kept & logits.filled[None, :]
    return kept if logits.allowed is None else kept & logits.allowed


def log_sum_exp_of(matrix: Tensor, counted: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of the counted entries (None: all) along `dim`, over all processes for columns, and where there are
    any."""

    def marked(values: Tensor) -> Tensor:
        return values if counted is None else values.masked_fill(~counted, -torch.inf)

    largest = marked(matrix).amax(dim=dim, keepdim=True).detach()
    largest = all_reduce_max(largest) if dim == 0 else largest
    exists = largest > -torch.inf
    reference = torch.where(exists, largest, 0.0)
    total = marked(matrix - reference).exp().sum(dim=dim, keepdim=True)
    total = all_reduce_sum(total) if dim == 0 else total
    return reference + torch.where(exists, total, 1.0).log(), exists
