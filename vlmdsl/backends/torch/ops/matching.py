"""Whether an image and a text belong together, by two logits of each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vlmdsl.backends.torch import collectives
from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.values import precise

__all__ = ["matched", "matching"]


def matching(logits: Tensor, truth: Tensor) -> Tensor:
    """The mean cross-entropy of two classes over all samples of the global batch: 0-d.

    `logits` [b, 2], the second being that of a match; `truth` [b] says of which samples image and text belong together.

    Source: FLAVA (Singh et al., CVPR 2022), `torchmultimodal/modules/losses/flava.py`.

    >>> round(matching(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([True, False])).item(), 4)
    0.8133
    """
    first, second = precise(logits).unbind(dim=1)
    return mean(softplus(torch.where(truth, first - second, second - first)))


def matched(pairs: Tensor, *others: Tensor) -> Tensor:
    """The mean cross-entropy of two classes over all rows of the global batch: 0-d.

    `pairs` [b, 2] are the logits of pairs, the second being that of a match. `others` alternate logits [b, 2] of what is not
    a pair with a condition [b]: rows for which it fails do not count.

    Source: ALBEF (Li et al., NeurIPS 2021), `models/model_pretrain.py`.
    """
    first, second = precise(pairs).unbind(dim=1)
    total, count = softplus(first - second).sum(), torch.full_like(first[0], len(first))
    for logits, holds in zip(others[::2], others[1::2], strict=True):
        first, second = torch.where(holds[:, None], precise(logits), 0.0).unbind(dim=1)
        total = total + torch.where(holds, softplus(second - first), 0.0).sum()
        count = count + holds.sum()
    return collectives.all_reduce_sum(total) / collectives.all_reduce_sum(count)
