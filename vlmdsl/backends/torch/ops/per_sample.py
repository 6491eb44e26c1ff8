"""Numbers per sample of the data set: tables [N], the same on every process, read and written at positions of samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather
from vlmdsl.backends.torch.values import Number, precise

__all__ = ["Mixture", "fitted_mixture", "lookup", "mixture", "running_means", "write"]

_BLOCK = 2**20
"""Number of samples whose probabilities are in memory at a time."""
_SMALLEST_VARIANCE = 1e-6
"""Added to every variance, so that no component shrinks to a point."""


def lookup(table: Tensor, index: Tensor) -> Tensor:
    """The numbers of the samples at the positions `index` [b]: [b]."""
    return table.gather(0, index.long())


def running_means(before: Tensor, values: Tensor, momentum: Number) -> Tensor:
    """`momentum` times the mean of each sample so far [b] plus (1 - `momentum`) times its value [b]: [b], without gradient.
    For a sample without a mean (NaN) it is the value."""
    before, values = precise(before), precise(values.detach())
    return torch.where(before.isnan(), values, momentum * before + (1.0 - momentum) * values)


def write(table: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """The table [N] with the `values` [b] of all processes at the positions `index` [b].

    For a repeated sample of the global batch the last value is kept, in the order of the ranks: all its copies write that
    one, so the result is deterministic.
    """
    places, entering = all_gather(index.long()), all_gather(values.detach())
    ordered, order = places.sort(stable=True)
    last = torch.searchsorted(ordered, places, right=True) - 1
    return table.scatter(0, places, entering[order[last]].to(table.dtype))


class Mixture(NamedTuple):
    """Shares, means and variances of two components: [2, 1] each, in float64."""

    shares: Tensor
    means: Tensor
    variances: Tensor

    def probabilities(self, values: Tensor) -> Tensor:
        """The probability of each component for each of `values` [n]: [2, n]."""
        logits = self.shares.log() - 0.5 * (self.variances.log() + (values - self.means).square() / self.variances)
        return logits.softmax(dim=0)

    def step(self, blocks: tuple[Tensor, ...]) -> Mixture:
        """One step of EM over all values. Variances are computed from distances to the old means, to avoid cancellation."""
        count, distance, square = (torch.zeros_like(self.means) for _ in range(3))
        for values in blocks:
            weights, distances = self.probabilities(values), values - self.means
            count += weights.sum(dim=1, keepdim=True)
            distance += (weights * distances).sum(dim=1, keepdim=True)
            square += (weights * distances.square()).sum(dim=1, keepdim=True)
        count = count.clamp(min=torch.finfo(count.dtype).tiny)  # a component can lose all samples
        moved = distance / count
        total = sum(len(values) for values in blocks)
        return Mixture(
            count / total, self.means + moved, (square / count - moved.square()).clamp(min=0.0) + _SMALLEST_VARIANCE
        )


def fitted_mixture(values: Tensor, iterations: int) -> Mixture:
    """A mixture of two normal distributions, fitted to `values` [n] in float64 by `iterations` steps of EM.

    It starts with the smallest and the largest value as means, the variance of all, and equal shares.
    """
    blocks = torch.split(values, _BLOCK)
    means = torch.stack([values.min(), values.max()])[:, None]
    spread = values.var(correction=0).expand(2, 1) + _SMALLEST_VARIANCE
    fitted = Mixture(torch.full_like(means, 0.5), means, spread)
    for _ in range(iterations):
        fitted = fitted.step(blocks)
    return fitted


def mixture(table: Tensor, before: Tensor, component: str, iterations: int) -> Tensor:
    """The probability that each number of `table` [N] belongs to the component with the `larger` or the `smaller` mean of a
    mixture of two normal distributions, fitted to all finite ones by `iterations` steps of EM: [N].

    If the number of a sample is not finite, its probability stays that of `before` [N]; with fewer than two finite numbers
    all do.
    """
    present = table.isfinite()
    values = table[present].double()
    if len(values) < 2:
        return before
    fitted = fitted_mixture(values, iterations)
    row = 1 if component == "larger" else 0
    if fitted.means[0, 0] > fitted.means[1, 0]:
        row = 1 - row
    probabilities = torch.cat([fitted.probabilities(block)[row] for block in torch.split(values, _BLOCK)])
    result = before.clone()
    result[present] = probabilities.to(before.dtype)
    return result
