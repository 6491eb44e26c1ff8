"""Whether an image and a text belong together, by two logits of each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.ops.sample_weights import among, mean_of_parts
from vlmdsl.backends.torch.values import precise

__all__ = ["matched", "matching"]


def matching(logits: Tensor, truth: Tensor, *, where: Tensor | None = None, sample_weight: Tensor | None = None) -> Tensor:
    """The mean cross-entropy of two classes over all samples of the global batch: 0-d.

    `logits` [b, 2], the second being that of a match; `truth` [b] says of which samples image and text belong together.
    `where` [b] and `sample_weight` [b] say which samples count, and how much (`ops.sample_weights`).

    Source: FLAVA (Singh et al., CVPR 2022), `torchmultimodal/modules/losses/flava.py`.

    >>> round(matching(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([True, False])).item(), 4)
    0.8133
    """
    first, second = precise(logits).unbind(dim=1)
    losses = softplus(torch.where(truth, first - second, second - first))
    if where is None and sample_weight is None:
        return mean(losses)
    return mean_of_parts(losses, among(torch.ones_like(truth), where), sample_weight)


def matched(pairs: Tensor, *others: Tensor, where: Tensor | None = None, sample_weight: Tensor | None = None) -> Tensor:
    """The mean cross-entropy of two classes over all rows of the global batch: 0-d.

    `pairs` [b, 2] are the logits of pairs, the second being that of a match. `others` alternate logits [b, 2] of what is not
    a pair with a condition [b]: rows for which it fails do not count. `where` [b] and `sample_weight` [b] say which samples
    count, with their pair and with what is not one, and how much (`ops.sample_weights`).

    Source: ALBEF (Li et al., NeurIPS 2021), `models/model_pretrain.py`.
    """
    every = torch.ones_like(pairs[:, 0], dtype=torch.bool)
    rows = [(pairs, among(every, where), 1.0)]
    rows += [(logits, among(holds, where), -1.0) for logits, holds in zip(others[::2], others[1::2], strict=True)]
    losses = []
    for logits, counted, match in rows:
        first, second = torch.where(counted[:, None], precise(logits), 0.0).unbind(dim=1)
        losses.append(softplus(match * (first - second)))
    counted = torch.stack([counted for _, counted, _ in rows], dim=1)
    return mean_of_parts(torch.stack(losses, dim=1), counted, sample_weight)
