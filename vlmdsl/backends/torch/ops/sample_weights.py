"""Means over parts of samples (tokens, patches, pairs) in which some samples do not count, or each as much as its weight.

`where` [b] is true for the samples that count. `sample_weight` [b] are not negative, and say how much each of these counts:

    L = sum_i w_i sum_k l_ik / sum_i w_i n_i                    every part counts alike but for the weight of its sample
    L = sum_i w_i f_i / sum_i w_i, f_i a mean or a sum over k    every sample does

Both sums are those of all processes, so the mean is that of the global batch. Weights of 1 give the plain mean, a weight of
0 what `where` gives that leaves the sample out, and a common factor cancels out. All weights 0: 0, without a gradient. A
negative weight makes the mean NaN: dividing by such a sum would turn a loss around. Weights have a gradient, with one part
per sample (l_i - L) / sum_i w_i: a learned weight falls where the loss is above the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_reduce_sum, process_count
from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.values import precise

__all__ = ["amounts", "among", "mean_of_parts", "normalised", "shares_of_tokens"]


def among(counted: Tensor, where: Tensor | None) -> Tensor:
    """Which parts [b, ...] count: those that did, of the samples for which `where` [b] holds.

    >>> among(torch.tensor([[True, False], [True, True]]), torch.tensor([True, False])).tolist()
    [[True, False], [False, False]]
    """
    return counted if where is None else counted & where.view(-1, *[1] * (counted.dim() - 1))


def amounts(like: Tensor, where: Tensor | None, sample_weight: Tensor | None) -> Tensor:
    """How much each sample counts: [b], in the dtype of `like` [b, ...]; NaN for a negative weight.

    >>> amounts(torch.zeros(3), torch.tensor([True, True, False]), torch.tensor([0.5, -1.0, 2.0])).tolist()
    [0.5, nan, 0.0]
    """
    if sample_weight is None:
        return like.new_ones(like.shape[0]) if where is None else where.to(like.dtype)
    weight = precise(sample_weight).to(like.dtype)
    weight = torch.where(weight < 0, torch.nan, weight)
    return weight if where is None else torch.where(where, weight, 0.0)


def normalised(numbers: Tensor) -> Tensor:
    """The numbers over their sum over all processes; where that is 0, zeros without a gradient.

    >>> normalised(torch.tensor([1.0, 3.0])).tolist(), normalised(torch.zeros(2)).tolist()
    ([0.25, 0.75], [0.0, 0.0])
    """
    total = all_reduce_sum(numbers.sum())
    some = total != 0  # that of NaN is some, so that the mean is NaN
    return numbers * some / torch.where(some, total, 1.0)


def shares_of_tokens(
    tokens: Tensor, reduction: str, where: Tensor | None = None, sample_weight: Tensor | None = None
) -> Tensor:
    """What the loss of each token is multiplied by, [b, L]; of means all processes' together are 1, or 0.

    `tokens` [b, L] say how much each token counts in its sample, 0 for those that do not. `reduction`: with `token` every
    token of the global batch counts by that and the weight of its sample; with `sample` the mean of each sample is taken
    first, with `sum` its sum, and a sample that counts and has no token counts as 0.

    >>> tokens, weight = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([1.0, 2.0])
    >>> shares_of_tokens(tokens, "token", sample_weight=weight).tolist()
    [[0.25, 0.25], [0.5, 0.0]]
    """
    plain = where is None and sample_weight is None
    if reduction == "token":
        return normalised(tokens if plain else _weighed(tokens, amounts(tokens, where, sample_weight)))
    of_samples = (
        tokens.new_full((), 1.0 / (tokens.shape[0] * process_count()))
        if plain
        else normalised(amounts(tokens, where, sample_weight))[:, None]
    )
    if reduction == "sum":
        return tokens * of_samples
    total = tokens.sum(dim=1, keepdim=True)
    return tokens / torch.where(total > 0, total, 1.0) * of_samples


def _weighed(parts: Tensor, amount: Tensor) -> Tensor:
    """The parts [b, ...] times the amount [b] of their sample; 0 where there is no part, whatever the amount."""
    return torch.where(parts > 0, parts * amount.view(-1, *[1] * (parts.dim() - 1)), 0.0)


def mean_of_parts(losses: Tensor, counted: Tensor, sample_weight: Tensor | None) -> Tensor:
    """The mean of `losses` [b, ...] over the parts of all processes that are `counted` [b, ...], each as much as its
    sample: 0-d. What stands elsewhere may be anything; no part at all: 0.

    >>> weight = torch.tensor([1.0, 3.0])
    >>> mean_of_parts(torch.tensor([[2.0, 9.0], [6.0, 6.0]]), torch.tensor([[True, False], [True, True]]), weight).item()
    5.428571701049805
    """
    if sample_weight is None:
        return mean(losses.flatten(), counted.flatten())
    losses = torch.where(counted, precise(losses), 0.0)
    shares = normalised(_weighed(counted.to(losses.dtype), amounts(losses, None, sample_weight)))
    return all_reduce_sum((shares * losses).sum())
