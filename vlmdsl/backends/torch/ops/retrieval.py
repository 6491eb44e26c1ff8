"""Reference sets: exact search in chunks, what was found, and attention to it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.search import index_of
from vlmdsl.backends.torch.values import Picks, Table, TokenFeatures, of_one_precision, precise

__all__ = ["attend", "best_entries", "best_entries_by_index", "retrieve", "take"]

_CHUNK_NUMBERS = 2**24
"""Most similarities, or numbers of candidates, that are held at once: 64 MiB in float32."""
_SPARE = 8
"""Candidates that an index gives beyond the k wanted: one is the sample itself, the others tell that none was overlooked."""


def retrieve(query: Tensor, table: Table, keys: Tensor, k: int) -> Picks:
    """The `k` entries of the table with the largest cosine to each `query` [b, D], best first, of equals the earlier.

    An entry whose key is the sample's own (`keys` [b]) is not found. Where there are fewer, the mask is false. RuntimeError
    for a table that was never filled.
    """
    if table.values.shape[0] == 0:
        raise RuntimeError("the reference set is empty: fill it with `objective.references.fill(...)`")
    chunk = max(_CHUNK_NUMBERS // max(query.shape[0], 1), 1)
    arguments = (query.detach(), table.values, keys, table.keys, k, chunk)
    if table.handle is None:
        return Picks(*best_entries(*arguments))
    return Picks(*best_entries_by_index(*arguments, table.handle))


@torch.library.custom_op("vlmdsl::best_entries", mutates_args=())
def best_entries(query: Tensor, entries: Tensor, own: Tensor, keys: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Indices [b, k] into `entries` [R, D], and whether each is one; `chunk` entries are compared at a time.

    A custom operator, so that a compiled graph holds one node, whatever the number of chunks.
    """
    unit = F.normalize(precise(query), dim=-1)
    best = unit.new_full((query.shape[0], k), -torch.inf)
    indices = torch.zeros(query.shape[0], k, dtype=torch.int64, device=query.device)
    for start in range(0, entries.shape[0], chunk):
        part = F.normalize(entries[start : start + chunk].to(unit.dtype), dim=-1)
        scores = (unit @ part.T).masked_fill(own[:, None] == keys[None, start : start + chunk], -torch.inf)
        own_indices = torch.arange(start, start + part.shape[0], device=query.device).expand_as(scores)
        # Those of earlier chunks come first, so position is the order of the entries among equals.
        best, indices = _first_best(torch.cat([best, scores], dim=1), torch.cat([indices, own_indices], dim=1), k)
    return indices, best > -torch.inf


@best_entries.register_fake
def _(query: Tensor, entries: Tensor, own: Tensor, keys: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], k)
    return query.new_empty(shape, dtype=torch.int64), query.new_empty(shape, dtype=torch.bool)


@torch.library.custom_op("vlmdsl::best_entries_by_index", mutates_args=())
def best_entries_by_index(
    query: Tensor, entries: Tensor, own: Tensor, keys: Tensor, k: int, chunk: int, handle: Tensor
) -> tuple[Tensor, Tensor]:
    """As `best_entries`, by the index that `handle` stands for.

    The index proposes more entries than `k`; they are compared again, so that its rounding and its order of equals do
    not matter. A sample for which it may have overlooked one, because too many are nearly equal or of its own key, is
    searched for in full.
    """
    index = index_of(handle)
    unit = F.normalize(precise(query), dim=-1)
    count = min(k + _SPARE, len(index))
    indices = torch.zeros(query.shape[0], k, dtype=torch.int64, device=query.device)
    best = unit.new_full(indices.shape, -torch.inf)
    certain = torch.zeros(query.shape[0], dtype=torch.bool, device=query.device)
    at_once = max(_CHUNK_NUMBERS // (count * unit.shape[1]), 1)
    for start in range(0, query.shape[0], at_once):
        rows = slice(start, start + at_once)
        proposed, candidates = index.search(unit[rows], count)
        # From left to right as in the table, so that a stable sort keeps the earlier of equals first.
        candidates = candidates.sort(dim=1).values
        scores = (unit[rows][:, None] * F.normalize(entries[candidates].to(unit.dtype), dim=-1)).sum(dim=-1)
        scores = scores.masked_fill(own[rows][:, None] == keys[candidates], -torch.inf)
        ranked, order = scores.sort(dim=1, descending=True, stable=True)
        best[rows, :count], indices[rows, :count] = ranked[:, :k], candidates.gather(1, order)[:, :k]
        certain[rows] = (best[rows, -1] > proposed[:, -1] + _rounding(unit.shape[1])) | (count == len(index))
    real, rest = best > -torch.inf, (~certain).nonzero().squeeze(1)
    if len(rest):
        indices[rest], real[rest] = best_entries(query[rest], entries, own[rest], keys, k, chunk)
    return indices, real


@best_entries_by_index.register_fake
def _(
    query: Tensor, entries: Tensor, own: Tensor, keys: Tensor, k: int, chunk: int, handle: Tensor
) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], k)
    return query.new_empty(shape, dtype=torch.int64), query.new_empty(shape, dtype=torch.bool)


def _rounding(dimension: int) -> float:
    """More than a sum of `dimension` products of unit vectors errs by in float32, in practice: errors grow with the root."""
    return 4.0 * float(torch.finfo(torch.float32).eps) * math.sqrt(dimension)


def _first_best(scores: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row of `scores` [b, n] and their `indices`, largest first, of equals the one further left.

    `topk` alone leaves open which of several equals it takes.
    """
    last = scores.topk(k, dim=1).values[:, -1:]
    above, level = scores > last, scores == last
    best = above | (level & (level.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
    order = torch.arange(scores.shape[1], 0, -1, device=scores.device)
    # Numbers that all differ leave `topk` no choice: the best ones come from left to right.
    places = torch.where(best, order, 0).topk(k, dim=1).indices
    chosen, ranked = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return chosen, indices.gather(1, places.gather(1, ranked))


def take(table: Table, picks: Picks) -> TokenFeatures:
    """What a column of the table holds of the picked entries: [b, K, D], zeros where there were fewer; no gradient."""
    return TokenFeatures(torch.where(picks.real[:, :, None], table.values[picks.indices], 0.0), picks.real)


def attend(query: Tensor, keys: TokenFeatures, *values: TokenFeatures) -> Tensor:
    """`query` [b, D] plus, for each of `values`, their mean weighted by softmax(query . keys / sqrt(D)): [b, D].

    Keys that the mask calls none take no part; without any, nothing is added. Entries of a table may have another precision
    than the query: the wider one is computed in.
    """
    q, *others = of_one_precision(query, keys.values, *(value.values for value in values))
    logits = (others[0] @ q[:, :, None]).squeeze(2) / math.sqrt(q.shape[1])
    if keys.mask is not None:
        # A row of minus infinities has no softmax; its weights are set to zero after one over zeros.
        logits = logits.masked_fill(~keys.mask & keys.mask.any(dim=1, keepdim=True), -torch.inf)
    weights = logits.softmax(dim=1)
    if keys.mask is not None:
        weights = weights.masked_fill(~keys.mask, 0.0)
    for value in others[1:]:
        q = q + (weights[:, None, :] @ value).squeeze(1)
    return q.to(query.dtype)
