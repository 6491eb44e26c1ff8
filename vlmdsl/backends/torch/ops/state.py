"""What outlives a step: each function takes the old state and gives the new one, and changes nothing in place."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather
from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.values import Memory, Similarities, precise

__all__ = ["enqueue", "nearest", "running_mean"]


def running_mean(before: Tensor, values: Tensor, momentum: float) -> Tensor:
    """`momentum` of the mean so far, and the rest of the mean of `values` [b] over all processes: 0-d, without gradient."""
    return momentum * precise(before) + (1.0 - momentum) * mean(values.detach())


def enqueue(before: Memory, *values: Tensor) -> Memory:
    """The memory after everybody's `values` [b, D] have entered, one stream after the other, each in the order of the ranks.

    They overwrite the oldest slots and go on at the first after the last; of more values than slots the newest stay.
    """
    size = before.values.shape[0]
    entering = torch.cat([all_gather(value.detach()) for value in values]).to(before.values.dtype)
    count = entering.shape[0]
    slots = (before.written + torch.arange(count, device=entering.device)) % size
    kept = before.values.index_copy(0, slots[-size:], entering[-size:])
    return Memory(kept, before.written + count)


def nearest(similarities: Similarities, memory: Memory, own: Tensor) -> Tensor:
    """The entry of the memory that is most similar to each sample, without gradient: [b, D]; `own` where it is empty."""
    assert similarities.filled is not None
    best = similarities.rows.detach().masked_fill(~similarities.filled, -torch.inf).argmax(dim=1)
    return torch.where(memory.written > 0, memory.values[best].to(own.dtype), own.detach())
