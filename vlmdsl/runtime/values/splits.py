"""Texts for text decoders: where a prefix ends, which samples are predicted in parallel, and the token after each one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlmdsl.runtime.values.mask import NOT_SELECTED
from vlmdsl.runtime.values.text import TextBatch

__all__ = ["Parallel", "Prefix", "next_ids", "prefix_lengths", "prompted"]


class Prefix(NamedTuple):
    """How many of the first tokens of each text are its prefix: `lengths [b]`, int64."""

    lengths: Tensor


class Parallel(NamedTuple):
    """Of which samples all tokens are hidden and predicted at once: `samples [b]`, bool."""

    samples: Tensor


def prefix_lengths(text: TextBatch, uniforms: Tensor) -> Tensor:
    """The lengths `[b]` of the prefixes that `uniforms [b]`, numbers in [0, 1), draw: of m tokens from 1, the first token
    only, to m - 1, each as likely as the others.

    >>> mask = torch.tensor([[True] * 4, [True] * 4, [True, False, False, False]])
    >>> prefix_lengths(TextBatch(mask.long(), mask), torch.tensor([0.0, 0.99, 0.5])).tolist()
    [1, 3, 1]
    """
    predicted = (text.mask.sum(dim=1) - 1).clamp(min=1)
    # The product may round up to the number of predicted tokens.
    return 1 + (uniforms.double() * predicted).long().clamp(max=predicted - 1)


def prompted(prompt: TextBatch, text: TextBatch) -> tuple[TextBatch, Tensor]:
    """Each text after its prompt, without padding between them, and the lengths `[b]` of the prefixes: the prompts, with
    the first token of the text, which is its start mark.

    >>> prompt = TextBatch(torch.tensor([[5, 0]]), torch.tensor([[True, False]]))
    >>> text = TextBatch(torch.tensor([[7, 8]]), torch.tensor([[True, True]]))
    >>> whole, lengths = prompted(prompt, text)
    >>> whole.ids.tolist(), whole.mask.tolist(), lengths.tolist()
    ([[5, 7, 8, 0]], [[True, True, True, False]], [2])
    """
    ids, mask = (torch.cat(parts, dim=1) for parts in zip(prompt, text, strict=True))
    order = mask.logical_not().to(torch.int8).argsort(dim=1, stable=True)
    return TextBatch(ids.gather(1, order), mask.gather(1, order)), prompt.mask.sum(dim=1) + 1


def next_ids(ids: Tensor, prefix: Prefix | None) -> Tensor:
    """The id of the token after each one, `NOT_SELECTED` where it is padding, in the prefix, or there is none: `[b, L]`.

    `ids [b, L]` are `token_ids` of texts: `NOT_SELECTED` at padding.

    >>> next_ids(torch.tensor([[1, 5, 6, 2, -100]]), Prefix(torch.tensor([2]))).tolist()
    [[-100, 6, 2, -100, -100]]
    """
    following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], NOT_SELECTED)], dim=1)
    if prefix is None:
        return following
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return torch.where(places < prefix.lengths[:, None], NOT_SELECTED, following)
