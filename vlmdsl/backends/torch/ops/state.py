"""State across steps: each function takes the old state and returns the new one, without changes in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_sum, process_count
from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.ops.product import product
from vlmdsl.backends.torch.values import Memory, Number, Similarities, TokenFeatures, precise

__all__ = ["enqueue", "entered", "nearest", "nearest_entry", "running_mean", "texts_as_kept"]

_CHUNK_NUMBERS = 2**24
"""Most similarities that are held at once: 64 MiB in float32."""


def running_mean(before: Tensor, values: Tensor, momentum: Number) -> Tensor:
    """`momentum` of the mean so far, and the rest of the mean of `values` [b] or [b, D] over the samples of all processes:
    0-d or [D], without gradient."""
    return momentum * precise(before) + (1.0 - momentum) * _mean_of_samples(values.detach())


def _mean_of_samples(values: Tensor) -> Tensor:
    if values.dim() == 1:
        return mean(values)
    return all_reduce_sum(precise(values).sum(dim=0)) / (values.shape[0] * process_count())


def enqueue(before: Memory, *values: Tensor | TokenFeatures) -> Memory:
    """The memory after everybody's `values` [b, D], labels [b], images [b, 3, H, W] or ids of texts [b, L] with their mask
    have entered, one stream after the other, each in the order of the ranks.

    They overwrite the oldest slots, continuing at the first after the last; if there are more values than slots, the newest
    stay.
    """
    (first, *_) = values
    if isinstance(first, TokenFeatures) or before.values.dim() > 2:
        return _enqueue_input(before, first)
    size = before.values.shape[0]
    entering = torch.cat([all_gather(value.detach()) for value in values if isinstance(value, Tensor)])
    entering = entering.to(before.values.dtype)
    count = entering.shape[0]
    written = before.written + count
    # Computed per slot, not per value, so that no shape depends on their number: its newest value, if any.
    age = (written - 1 - torch.arange(size, device=entering.device)) % size
    newest = count - 1 - age
    written_now = (newest >= 0).view(-1, *[1] * (entering.dim() - 1))
    kept = torch.where(written_now, entering[newest.clamp(min=0)], before.values)
    return Memory(kept, written)


def _enqueue_input(before: Memory, value: Tensor | TokenFeatures) -> Memory:
    """Of images or texts, of which a queue may hold gigabytes: nothing is made but the new queue."""
    if not isinstance(value, TokenFeatures):
        entering = all_gather(value.detach()).to(before.values.dtype)
        return Memory(entered(before.values, before.written, entering), before.written + entering.shape[0])
    assert before.mask is not None, "texts have a mask"
    ids, mask = texts_as_kept(value, before)
    ids, tokens = all_gather(ids), all_gather(mask.to(torch.uint8)).to(torch.bool)
    held, real = entered(before.values, before.written, ids), entered(before.mask, before.written, tokens)
    return Memory(held, before.written + ids.shape[0], real)


@torch.library.custom_op("vlmdsl::entered", mutates_args=())
def entered(before: Tensor, written: Tensor, entering: Tensor) -> Tensor:
    """The slots [Q, ...] after the next entries [n, ...] have overwritten the oldest, those after `written`.

    A custom operator, since how many of them stay depends on the size of the batch.
    """
    newest = entering[-before.shape[0] :]
    first = written + entering.shape[0] - newest.shape[0]
    slots = (first + torch.arange(newest.shape[0], device=before.device)) % before.shape[0]
    return before.index_copy(0, slots, newest)


@entered.register_fake
def _(before: Tensor, written: Tensor, entering: Tensor) -> Tensor:
    return torch.empty_like(before)


def texts_as_kept(texts: TokenFeatures, memory: Memory) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts, padded to the length of those that a memory keeps: [b, L] each."""
    mask = torch.ones_like(texts.values, dtype=torch.bool) if texts.mask is None else texts.mask
    longer = memory.values.shape[1] - texts.values.shape[1]
    return F.pad(texts.values, (0, longer)), F.pad(mask, (0, longer))


def nearest(compared: Similarities | Tensor, memory: Memory, own: Tensor) -> Tensor:
    """The entry of the memory that is most similar to each sample, without gradient: [b, D]; `own` where it is empty.

    `compared` are the similarities to the memory, or vectors [b, D] whose products with the entries are the similarities:
    these are made a few entries at a time, since only the largest is wanted.
    """
    if isinstance(compared, Tensor):
        chunk = max(_CHUNK_NUMBERS // compared.shape[0], 1)
        best = nearest_entry(compared.detach(), memory.values, memory.written, chunk)
    else:
        assert compared.filled is not None
        best = compared.rows.detach().masked_fill(~compared.filled, -torch.inf).argmax(dim=1)
    return torch.where(memory.written > 0, memory.values[best].to(own.dtype), own.detach())


@torch.library.custom_op("vlmdsl::nearest_entry", mutates_args=())
def nearest_entry(query: Tensor, entries: Tensor, written: Tensor, chunk: int) -> Tensor:
    """The index [b] of the written entry [Q, D] with the largest product, of equals the first; `chunk` at a time.

    A custom operator, so that a compiled graph holds one node, whatever the number of chunks.
    """
    best = torch.zeros(query.shape[0], dtype=torch.int64, device=query.device)
    highest = torch.full((query.shape[0],), -torch.inf, device=query.device, dtype=torch.float64)
    for start in range(0, entries.shape[0], chunk):
        products = product(query, entries[start : start + chunk])
        slots = torch.arange(start, start + products.shape[1], device=query.device)
        largest, place = products.masked_fill_(slots >= written, -torch.inf).max(dim=1)
        better = largest > highest
        best, highest = torch.where(better, place + start, best), torch.where(better, largest.double(), highest)
    return best


@nearest_entry.register_fake
def _(query: Tensor, entries: Tensor, written: Tensor, chunk: int) -> Tensor:
    return query.new_empty(query.shape[0], dtype=torch.int64)
