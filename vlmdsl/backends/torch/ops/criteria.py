"""The criteria in their plain form: one matrix in, each sample's loss out, differentiated by autograd.

Criteria that the compiler does not recognise as a contrastive region run here. Excluded candidates are in no denominator,
and a target is a distribution over the others; a sample without candidates, or whose target is entirely excluded, has loss
0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_max, all_reduce_sum, own_slice, process_count
from vlmdsl.backends.torch.ops.candidates import candidates_of, log_sum_exp_of
from vlmdsl.backends.torch.ops.targets import pair_positions, shares_of
from vlmdsl.backends.torch.values import Similarities, Target, precise

__all__ = [
    "cross_entropy",
    "hinge",
    "log_sum_exp",
    "mean",
    "row_mean",
    "row_sum",
    "samples",
    "sigmoid_loss",
    "target_entropy",
]


def cross_entropy(logits: Similarities, target: Target, along: str, denominator: str) -> Tensor:
    """Each sample's cross-entropy `sum_j P_ij (r_i - A_ij)` along `rows` or `columns`: [b].

    r_i is the log-sum-exp over `all` candidates, or over the `negatives`: all but the pair.
    """
    matrix, dim = precise(logits.rows if along == "rows" else logits.columns), 1 if along == "rows" else 0
    candidates = None if logits.complete else candidates_of(logits, matrix, along)
    shares, counted = shares_of(target, matrix, along, candidates), candidates
    if denominator == "negatives":
        counted = ~pair_positions(matrix) if candidates is None else candidates & ~pair_positions(matrix)
    normaliser, exists = log_sum_exp_of(matrix, counted, dim)
    if candidates is not None:  # an excluded entry may be infinite, and 0 times infinity is not 0
        matrix = torch.where(candidates, matrix, 0.0)
    losses = torch.where(exists, shares * (normaliser - matrix), 0.0).sum(dim=dim)
    return losses if along == "rows" else own_slice(all_reduce_sum(losses))


def target_entropy(logits: Similarities, target: Target, along: str) -> Tensor:
    """The entropy `-sum_j P_ij log P_ij` of each sample's target over its candidates, along `rows` or `columns`: [b]."""
    matrix, dim = precise(logits.rows if along == "rows" else logits.columns), 1 if along == "rows" else 0
    shares = shares_of(target, matrix, along, None if logits.complete else candidates_of(logits, matrix, along))
    entropies = -torch.special.xlogy(shares, shares).sum(dim=dim)
    return entropies if along == "rows" else own_slice(all_reduce_sum(entropies))


def log_sum_exp(logits: Similarities) -> Tensor:
    """Each row's log-sum-exp over its candidates: [b]; -inf, without gradient, where there is none."""
    matrix = precise(logits.rows)
    counted = None if logits.complete else candidates_of(logits, matrix, "rows")
    normaliser, exists = log_sum_exp_of(matrix, counted, dim=1)
    return torch.where(exists, normaliser, -torch.inf).squeeze(1)


def row_sum(matrix: Similarities) -> Tensor:
    """The sum of each row's entries over its candidates: [b]; 0 where there is none."""
    return _candidates_only(matrix).sum(dim=1)


def row_mean(matrix: Similarities) -> Tensor:
    """The mean of each row's entries over its candidates: [b]; 0 where there is none."""
    entries = _candidates_only(matrix)
    if matrix.complete:
        return entries.mean(dim=1)
    return entries.sum(dim=1) / candidates_of(matrix, entries, "rows").sum(dim=1).clamp(min=1)


def _candidates_only(matrix: Similarities) -> Tensor:
    """The rows in float32 at least, 0 where an entry is not a candidate."""
    entries = precise(matrix.rows)
    return entries if matrix.complete else torch.where(candidates_of(matrix, entries, "rows"), entries, 0.0)


def sigmoid_loss(logits: Similarities, target: Target) -> Tensor:
    """Each row's sum over candidates of -log sigmoid(z), z = the logit where the target is positive, else minus it: [b]."""
    matrix = precise(logits.rows)
    positive = shares_of(target, matrix, "rows", None) > 0
    losses = F.softplus(torch.where(positive, -matrix, matrix), threshold=40.0)
    return (losses if logits.complete else torch.where(candidates_of(logits, matrix, "rows"), losses, 0.0)).sum(dim=1)


def hinge(logits: Similarities, along: str, margin: float, negatives: str) -> Tensor:
    """By how much the negatives of each sample come nearer than `margin` below its pair, max(0, margin + z_ij - z_ii), along
    `rows` or `columns`: [b]. Over its candidates but the pair it is their `mean`, or that of the `hardest`; none: 0.

    A sample whose pair is not a candidate has 0. Hardest ones that are equal share the gradient.
    """
    matrix = precise(logits.rows if along == "rows" else logits.columns)
    pairs, candidates = pair_positions(matrix), candidates_of(logits, matrix, along)
    own = torch.where(pairs, matrix, 0.0).sum(dim=1)
    asks = (pairs & candidates).any(dim=1)
    if along == "columns":
        own, asks = all_gather(own)[None, :], all_gather(asks)[None, :]
    else:
        own, asks = own[:, None], asks[:, None]
    counted = candidates & ~pairs & asks
    excess = torch.where(counted, (margin + matrix - own).clamp(min=0.0), 0.0)
    if negatives == "hardest":
        largest = excess.detach().amax(dim=int(along == "rows"), keepdim=True)
        largest = all_reduce_max(largest) if along == "columns" else largest
        counted = counted & (excess == largest)
    dim = 1 if along == "rows" else 0
    total, count = torch.where(counted, excess, 0.0).sum(dim=dim), counted.sum(dim=dim).to(excess.dtype)
    if along == "columns":
        total, count = own_slice(all_reduce_sum(total)), own_slice(all_reduce_sum(count))
    return total / count.clamp(min=1.0)


def mean(values: Tensor, over: Tensor | None = None) -> Tensor:
    """The mean over the samples of all processes, or over those where `over` holds (0 if it holds nowhere): 0-d."""
    values = precise(values)
    if over is None:
        own = values.mean()
        return own if process_count() == 1 else all_reduce_sum(own) / process_count()
    total = all_reduce_sum(torch.where(over, values, 0.0).sum())
    count = all_reduce_sum(over.sum().to(values.dtype))
    return total / count.clamp(min=1.0)


def samples_where(*conditions: Tensor) -> Tensor:
    """For how many samples of all processes the conditions [b] hold, all conditions together: 0-d, float32.

    >>> samples_where(torch.tensor([True, False]), torch.tensor([True, True])).item()
    3.0
    """
    return all_reduce_sum(torch.stack([condition.sum() for condition in conditions]).sum().float())


def samples(inputs: Mapping[str, Tensor], over: Tensor | None = None) -> Tensor:
    """How many samples all processes hold together, or for how many of them `over` holds: 0-d."""
    features = precise(next(value for value in inputs.values() if value.is_floating_point() and value.dim()))
    if over is None:
        return features.new_full((), features.shape[0] * process_count())
    return all_reduce_sum(over.sum().to(features.dtype))
