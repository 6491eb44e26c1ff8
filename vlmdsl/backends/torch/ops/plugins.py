"""Criteria and targets of plug-ins: the inputs of their functions, and the use of their results."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_sum
from vlmdsl.backends.torch.ops.candidates import candidates_of
from vlmdsl.backends.torch.ops.sample_weights import among, mean_of_parts
from vlmdsl.backends.torch.ops.targets import pair_positions, renormaliser, shares_of
from vlmdsl.backends.torch.values import Similarities, Target, TargetPart, TokenFeatures, precise
from vlmdsl.primitives.plugins.function import implementation

__all__ = ["Rows", "plugin_criterion", "plugin_target", "plugin_token_criterion"]


class Rows(NamedTuple):
    """This process's rows of a matrix, [b, N], as a criterion of a plug-in reads them.

    `values` is 0 where an entry is not a candidate, `candidates` is true where it is one, `pairs` where row and column
    belong to one sample.
    """

    values: Tensor
    candidates: Tensor
    pairs: Tensor


def plugin_criterion(name: str, *inputs: Tensor | TokenFeatures | Similarities | Target, **arguments: Any) -> Tensor:
    """What the function of the plug-in `name` gives for each sample of this process: [b].

    A matrix is read along its rows, in float32 at least; a target comes as shares of its candidates.
    """
    read: list[Any] = []
    for value in inputs:
        if isinstance(value, Similarities):
            matrix = precise(value.rows)
            candidates = candidates_of(value, matrix, "rows")
            values = matrix if value.complete else torch.where(candidates, matrix, 0.0)
            read.append(Rows(values, candidates, pair_positions(matrix)))
        elif isinstance(value, Target):
            (rows,) = [rows for rows in read if isinstance(rows, Rows)]
            read.append(shares_of(value, rows.values, "rows", rows.candidates))
        else:
            read.append(value)
    losses: Tensor = implementation(name)(*read, **arguments)
    return losses


def plugin_token_criterion(
    name: str,
    logits: Tensor,
    targets: Tensor,
    *,
    where: Tensor | None = None,
    sample_weight: Tensor | None = None,
    **arguments: Any,
) -> Tensor:
    """The mean over the tokens of all processes of what the function of the plug-in `name` gives for each: 0-d.

    It is called with logits [N, V], in float32 at least, and targets [N]. Tokens that do not count, whose target is
    negative, have logits of 0 and the target 0, and what it gives for them is ignored. `where` [b] and `sample_weight` [b]
    say which samples count, and how much (`ops.sample_weights`).
    """
    counted = among(targets >= 0, where)
    entries = torch.where(counted, targets, 0).flatten()
    # A NaN where nothing counts would pass on a NaN gradient.
    flat = torch.where(counted.flatten()[:, None], precise(logits).flatten(0, 1), 0.0)
    losses = implementation(name)(flat, entries, **arguments)
    return mean_of_parts(losses.view_as(targets), counted, sample_weight)


def plugin_target(name: str, values: Tensor, **arguments: Any) -> Target:
    """The target by which each pair is as likely as the function of the plug-in `name` says, each direction separately.

    `values` are this process's; those of the columns are gathered. A row of zeros has no target.
    """

    def matrices(matrix: Tensor) -> Similarities:
        with torch.no_grad():
            weights = implementation(name)(values, all_gather(values), **arguments).to(matrix.dtype)
            rows, columns = weights.sum(dim=1, keepdim=True), all_reduce_sum(weights.sum(dim=0, keepdim=True))
            return Similarities(weights * renormaliser(1.0, rows), weights * renormaliser(1.0, columns))

    return Target((TargetPart("dense", matrices=matrices),))
