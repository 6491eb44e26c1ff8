"""Criteria over a vocabulary: logits [b, L, V] of what each token is, in float32 at least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_reduce_sum, process_count
from vlmdsl.backends.torch.ops.sample_weights import among, mean_of_parts, shares_of_tokens
from vlmdsl.backends.torch.values import precise

__all__ = ["codes_at", "distill", "token_loss"]


def codes_at(codes: Tensor, at: Tensor) -> Tensor:
    """The codes [b, P] that `at` [b, P] selects, -1 elsewhere.

    >>> codes_at(torch.tensor([[5, 7]]), torch.tensor([[False, True]])).tolist()
    [[-1, 7]]
    """
    return torch.where(at, codes, -1)


def token_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    over: str = "all",
    reduction: str = "token",
    where: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """The mean cross-entropy of `softmax(logits)` with the targets, over the tokens of all processes: 0-d.

    `logits` [b, L, V]; `targets` [b, L] are vocabulary entries, negative where a token does not count (its logits may be
    anything, NaN included). `smoothing` moves that share of each target to `all` entries alike, or to the `others`.

    `reduction`: with `token` every token of the global batch counts alike, so that a process that holds more of them counts
    for more; with `sample` the mean of each sample's tokens is taken first, with `sum` their sum, and a sample without any
    counts as 0. No token at all: 0. `where` [b] and `sample_weight` [b] say which samples count, and how much
    (`ops.sample_weights`). `ops.linear_cross_entropy` is the same of states and a weight, without logits.

    >>> round(token_loss(torch.tensor([[[1.0, 0.0], [7.0, 7.0]]]), torch.tensor([[0, -1]])).item(), 4)
    0.3133
    """
    counted = among(targets >= 0, where)
    flat = precise(logits).flatten(0, 1)
    flat = torch.where(counted.flatten()[:, None], flat, 0.0)  # a NaN there would pass on a NaN gradient
    entries = torch.where(counted, targets, -1).flatten()
    if over == "others":  # torch moves a share of the smoothing to the target itself
        smoothing *= flat.shape[1] / (flat.shape[1] - 1)
    if where is None and sample_weight is None and reduction == "token":
        total = F.cross_entropy(flat, entries, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        count = all_reduce_sum(counted.sum().to(flat.dtype))
        return all_reduce_sum(total) / count.clamp(min=1.0)
    losses = F.cross_entropy(flat, entries, ignore_index=-1, reduction="none", label_smoothing=smoothing)
    losses = losses.view_as(targets)
    if where is None and sample_weight is None:
        sums = losses.sum(dim=1)
        by_sample = sums if reduction == "sum" else sums / counted.sum(dim=1).clamp(min=1)
        return all_reduce_sum(by_sample.sum()) / (by_sample.shape[0] * process_count())
    shares = shares_of_tokens(counted.to(losses.dtype), reduction, where, sample_weight)
    return all_reduce_sum((shares * losses).sum())


def distill(
    logits: Tensor,
    teacher: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    where: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """The mean cross-entropy of `softmax(logits)` with `softmax(teacher)`, over the tokens of all processes: 0-d.

    `logits` and `teacher` [b, L, V], each divided by its temperature; `targets` [b, L] are negative, or false, where a token
    does not count (its logits may be anything, NaN included). The teacher gets no gradient. No token at all: 0. `where` [b]
    and `sample_weight` [b] say which samples count, and how much (`ops.sample_weights`). Both logits are made:
    `ops.linear_cross_entropy` with `soft` is the same of states and weights, in chunks.

    >>> round(distill(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]]), torch.tensor([[0]])).item(), 4)
    0.8133
    """
    counted = among(targets if targets.dtype is torch.bool else targets >= 0, where)
    divided = (logits, temperature), (teacher.detach(), teacher_temperature)
    own, soft = (torch.where(counted[..., None], precise(each) / by, 0.0) for each, by in divided)
    losses = -(soft.softmax(dim=-1) * own.log_softmax(dim=-1)).sum(dim=-1)
    return mean_of_parts(losses, counted, sample_weight)
