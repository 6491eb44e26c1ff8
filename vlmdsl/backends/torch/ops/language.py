"""Criteria over a vocabulary: logits [b, L, V] of what each token is, in float32 at least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_reduce_sum
from vlmdsl.backends.torch.values import precise

__all__ = ["mlm"]


def mlm(vocabulary: Tensor, targets: Tensor) -> Tensor:
    """The mean of -log softmax(vocabulary)[target] over the chosen tokens of all processes, 0 if there is none: 0-d.

    `vocabulary` [b, L, V]; `targets` [b, L] are words, negative where a token is not asked for. A process that holds more of
    the chosen tokens counts for more.
    """
    logits = precise(vocabulary).flatten(0, 1)
    chosen = targets.flatten() >= 0
    logits = torch.where(chosen[:, None], logits, 0.0)  # a NaN there would pass on a NaN gradient
    words = torch.where(chosen, targets.flatten(), -1)
    total = all_reduce_sum(F.cross_entropy(logits, words, ignore_index=-1, reduction="sum"))
    count = all_reduce_sum(chosen.sum().to(logits.dtype))
    return total / count.clamp(min=1.0)
