"""Distributions over learned clusters, held as logarithms [b, D] in float32 at least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import process_count
from vlmdsl.backends.torch.ops.candidates import log_sum_exp_of
from vlmdsl.backends.torch.values import precise

__all__ = ["distribution", "entropy", "entropy_of_mean"]


def distribution(features: Tensor, temperature: float) -> Tensor:
    """The logarithm of each sample's softmax over its features divided by the temperature: [b, D]."""
    return F.log_softmax(precise(features) / temperature, dim=-1)


def entropy(p: Tensor, q: Tensor) -> Tensor:
    """`-sum_k p_k log q_k` of each sample, from the logarithms of both: [b]."""
    return -(p.exp() * q).sum(dim=-1)


def entropy_of_mean(p: Tensor) -> Tensor:
    """The entropy of the mean distribution over the samples of all processes, from logarithms: 0-d.

    The mean is taken of logarithms too, so that a cluster that nobody uses has no infinite gradient.
    """
    total, _ = log_sum_exp_of(p, torch.ones_like(p, dtype=torch.bool), dim=0)
    mean = total - p.new_full((), p.shape[0] * process_count()).log()
    return entropy(mean, mean).sum()
