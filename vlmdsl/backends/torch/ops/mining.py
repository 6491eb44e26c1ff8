"""Negatives mined from a similarity matrix, and features of the samples that were picked, wherever in the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch import collectives
from vlmdsl.backends.torch.ops.candidates import candidates_of
from vlmdsl.backends.torch.ops.state import texts_as_kept
from vlmdsl.backends.torch.ops.targets import pair_positions
from vlmdsl.backends.torch.values import Memory, Picks, Similarities, TokenFeatures, precise

__all__ = ["fetch", "hardest", "mine", "picked"]


def mine(matrix: Similarities, uniform: Tensor, along: str, floor: float = 0.0) -> Picks:
    """K negatives of each sample, none twice, along `rows` or `columns`: drawn with probabilities in proportion to the
    softmax over its candidates, plus `floor`. No gradient.

    A draw is the inverse of the cumulative distribution at `uniform` [b, K], or [b], in [0, 1), which comes from outside: so
    it is the same on one process and on several. The pair itself is never drawn, nor what is not a candidate; where there
    are fewer than K others, a pick is the sample itself and marked as not real.

    Source: ALBEF (Li et al., NeurIPS 2021) without a floor; BLIP (Li et al., ICML 2022) with 1e-4.
    """
    logits = _logits(matrix, along)
    negatives = _negatives(logits)
    weights = _weights(logits, negatives, floor)
    positions = torch.arange(logits.shape[1], device=logits.device)
    chosen: list[Tensor] = []
    for level in (uniform[:, None] if uniform.dim() == 1 else uniform).unbind(dim=1):
        possible, cumulative = weights > 0, weights.cumsum(dim=1)
        # Adding zero may change rounding, so entries without weight are also excluded explicitly.
        reached = possible & (cumulative > level[:, None] * cumulative[:, -1:])
        chosen.append(_first(reached, possible))
        weights = weights.masked_fill(positions == chosen[-1][:, None], 0.0)
    return _picks(chosen, logits)


def hardest(matrix: Similarities, along: str, k: int = 1) -> Picks:
    """The `k` most similar negatives of each sample along `rows` or `columns`, most similar first, of equals the earlier; as
    `mine` otherwise."""
    logits = _logits(matrix, along)
    possible = _negatives(logits)
    positions = torch.arange(logits.shape[1], device=logits.device)
    chosen: list[Tensor] = []
    for _ in range(k):
        left = logits.masked_fill(~possible, -torch.inf)
        chosen.append(_first(possible & (left == left.amax(dim=1, keepdim=True)), possible))
        possible = possible & (positions != chosen[-1][:, None])
    return _picks(chosen, logits)


def _logits(matrix: Similarities, along: str) -> Tensor:
    """The logits of this process's samples, minus infinity where an entry is not a candidate: [b, B]."""
    values = precise((matrix.rows if along == "rows" else matrix.columns).detach())
    if not matrix.complete:
        values = values.masked_fill(~candidates_of(matrix, values, along), -torch.inf)
    return values if along == "rows" else collectives.transposed(values)


def _negatives(logits: Tensor) -> Tensor:
    """The candidates but the pair; what is not a number is not one."""
    return (logits > -torch.inf) & ~pair_positions(logits)


def _weights(logits: Tensor, negatives: Tensor, floor: float) -> Tensor:
    """In proportion to softmax + floor over the negatives, 0 elsewhere.

    Without a floor the pair cancels, and is left out of the largest logit: negatives that are tiny beside it would all
    become zero.
    """
    if floor:
        reference = logits.logsumexp(dim=1, keepdim=True)
    else:
        reference = logits.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(negatives, (logits - reference).exp() + floor, 0.0)


def _first(reached: Tensor, possible: Tensor) -> Tensor:
    """The first entry of each row that is reached; rounding may leave none, then the last possible one; -1 without any."""
    count = reached.shape[1]
    positions = torch.arange(count, device=reached.device).expand(reached.shape)
    first = positions.masked_fill(~reached, count).amin(dim=1)
    return torch.minimum(first, positions.masked_fill(~possible, -1).amax(dim=1))


def _picks(chosen: list[Tensor], logits: Tensor) -> Picks:
    indices = torch.stack(chosen, dim=1)
    real = indices >= 0
    return Picks(torch.where(real, indices, _own(logits.shape[0], logits)[:, None]), real)


def _own(share: int, like: Tensor) -> Tensor:
    """The positions of this process's samples in the global batch: [b]."""
    return torch.arange(share, device=like.device) + collectives.process_index() * share


def fetch(x: Tensor | TokenFeatures, picks: Picks, memory: Memory | None = None) -> Tensor | TokenFeatures:
    """What the picked samples of the global batch have: of one pick each as it is, `x` [b, ...] or tokens with their mask;
    of K picks of vectors [b, D] the tokens [b, K, D], masked where a pick is not real. Differentiable.

    A sample without candidates has picked itself (`picked` says so). With a `memory` picks are of the batch and of its
    entries, which stand after it: images [b, 3, H, W], or ids of texts [b, L] with their mask.
    """
    if memory is not None:
        return _fetch_input(x, picks, memory)
    indices, count = picks.indices.flatten(), picks.indices.shape[1]
    if isinstance(x, TokenFeatures):
        assert count == 1, "tokens of one pick each"
        mask = None if x.mask is None else collectives.fetch(x.mask, indices)
        return TokenFeatures(collectives.fetch(x.values, indices), mask)
    fetched = collectives.fetch(x, indices)
    return fetched if count == 1 else TokenFeatures(fetched.reshape(*picks.indices.shape, -1), picks.real)


def _fetch_input(x: Tensor | TokenFeatures, picks: Picks, memory: Memory) -> Tensor | TokenFeatures:
    """The picked images or texts. A sample that has picked an entry of the memory asks the others for its own, which is
    here."""
    share = picks.indices.shape[0]
    held, batch = _own(share, picks.indices), share * collectives.process_count()
    indices = picks.indices[:, 0]
    of_memory = indices >= batch
    sample, entry = torch.where(of_memory, held, indices), (indices - batch).clamp(min=0)

    def from_both(samples: Tensor, entries: Tensor) -> Tensor:
        chosen = of_memory.view(-1, *[1] * (samples.dim() - 1))
        return torch.where(chosen, entries[entry].to(samples.dtype), collectives.fetch(samples, sample))

    if not isinstance(x, TokenFeatures):
        return from_both(x, memory.values)
    assert memory.mask is not None, "texts have a mask"
    ids, mask = texts_as_kept(x, memory)
    return TokenFeatures(from_both(ids, memory.values), from_both(mask, memory.mask))


def picked(picks: Picks) -> Tensor:
    """Whether each sample has picked another one at all: [b]."""
    return picks.real.any(dim=1)
