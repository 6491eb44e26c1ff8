"""Texts that a decoder writes: the most likely continuations of given first tokens, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vlmdsl.runtime.modules.towers import KeyValueCache
from vlmdsl.runtime.values import TextBatch

__all__ = ["Written", "write"]

NextLogits = Callable[[TextBatch, Tensor], Tensor]
"""From texts [n, L], and which sample each one belongs to [n], to the logits [n, V] of the token after the last one."""


class Written(NamedTuple):
    """The tokens that were written for each sample, without its first ones and the end mark, and their log-probability,
    that of the end mark included."""

    tokens: list[list[int]]
    scores: Tensor


def write(
    following: NextLogits,
    first: TextBatch,
    *,
    end: int | None,
    longest: int,
    beams: int = 1,
    size: int | None = None,
    cache: KeyValueCache | None = None,
) -> Written:
    """The continuation of each of the texts `first [b, L]` that a beam search with this many `beams` prefers.

    With one beam each token is the most likely one (greedy). Of several finished texts the one with the largest mean
    log-probability per token is taken. Writing stops at the `end` mark, or where a text has `longest` tokens, its first ones
    included. `size` is the number of tokens that there are, where the logits have more. With a `cache` of a decoder,
    `following` is first given the texts and then their new tokens only, none of a finished text, and is to put them there;
    the beams of a sample come one after the other. ValueError for an empty text.

    >>> def after(texts, samples):  # the next number, up to 3
    ...     last = texts.ids.gather(1, texts.mask.sum(dim=1, keepdim=True) - 1)[:, 0]
    ...     return torch.nn.functional.one_hot((last + 1).clamp(max=3), 5).float()
    >>> start = TextBatch(torch.tensor([[0], [1]]), torch.ones(2, 1, dtype=torch.bool))
    >>> write(after, start, end=3, longest=9).tokens
    [[1, 2], [2]]
    """
    lengths = first.mask.sum(dim=1)
    if not bool((lengths > 0).all()):
        raise ValueError("a text is continued from at least one token")
    search = _Beams(first, longest, beams, end)
    for _ in range(longest - int(lengths.min())):
        if search.finished:
            break
        if cache is not None:
            cache.reorder(search.origins)
        logits = following(search.texts if cache is None else search.new, search.samples)[:, :size]
        search.extend(logits.float().log_softmax(dim=1))
    return search.best(lengths)


class _Beams:
    """The texts of a search, `beams` for each sample, with the sums of their log-probabilities."""

    def __init__(self, first: TextBatch, longest: int, beams: int, end: int | None) -> None:
        count, own = first.ids.shape
        self.beams, self.end = beams, end
        width = max(longest, own)
        ids = torch.nn.functional.pad(first.ids * first.mask, (0, width - own)).repeat_interleave(beams, dim=0)
        self._ids, self._longest = ids, longest
        self._lengths = first.mask.sum(dim=1).repeat_interleave(beams)
        self.samples = torch.arange(count, device=ids.device).repeat_interleave(beams)
        self._done = self._lengths >= longest
        self.origins = torch.arange(len(ids), device=ids.device)
        """Of each text the number of the one that it continues."""
        self.new = self.texts
        """The last tokens of the texts, which were not there before."""
        # At first all beams of a sample are the same text, of which only one counts.
        scores = ids.new_full((count, beams), -torch.inf, dtype=torch.float32)
        scores[:, 0] = 0.0
        self._scores = scores.flatten()

    @property
    def finished(self) -> bool:
        """Whether no text is to be continued."""
        return bool(self._done.all())

    @property
    def texts(self) -> TextBatch:
        """The texts so far, padded to the longest."""
        longest = int(self._lengths.max())
        mask = torch.arange(longest, device=self._ids.device) < self._lengths[:, None]
        return TextBatch(self._ids[:, :longest], mask)

    def extend(self, chances: Tensor) -> None:
        """Continue each text with the most likely tokens, of all beams of its sample, given their log-probabilities."""
        vocabulary = chances.shape[1]
        # A finished text has one continuation, itself.
        chances = torch.where(self._done[:, None], -torch.inf, chances)
        chances[self._done, 0] = 0.0
        total = (self._scores[:, None] + chances).view(-1, self.beams * vocabulary)
        best, places = total.topk(self.beams, dim=1)
        offset = torch.arange(len(total), device=places.device)[:, None] * self.beams
        self.origins = (places // vocabulary + offset).flatten()
        tokens, self._scores = (places % vocabulary).flatten(), best.flatten()
        self._ids, self._lengths, done = (part[self.origins] for part in (self._ids, self._lengths, self._done))
        ended = tokens == self.end if self.end is not None else torch.zeros_like(done)
        grows = ~done & ~ended
        self.new = TextBatch(tokens[:, None] * grows[:, None], grows[:, None])
        rows = torch.arange(len(tokens), device=tokens.device)
        places_to_write = self._lengths.clamp(max=self._ids.shape[1] - 1)
        own = self._ids[rows, places_to_write]
        self._ids[rows, places_to_write] = torch.where(grows, tokens, own)
        self._lengths = self._lengths + grows
        self._done = done | ended | (self._lengths >= self._longest)

    def best(self, first: Tensor) -> Written:
        """The preferred text of each sample, without its first tokens, of which each had `first`."""
        written = self._lengths.view(-1, self.beams) - first[:, None]
        scores = self._scores.view(-1, self.beams)
        chosen = (scores / (written + 1)).argmax(dim=1)
        rows = torch.arange(len(chosen), device=chosen.device) * self.beams + chosen
        texts = zip(self._ids[rows].tolist(), first.tolist(), self._lengths[rows].tolist(), strict=True)
        return Written([ids[start:stop] for ids, start, stop in texts], self._scores[rows])
