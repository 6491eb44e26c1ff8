"""Masked texts: which tokens of a text are asked for, and what stands in their place. Works on token ids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlmdsl.passes.masked import places_asked
from vlmdsl.runtime.data.batch import NOT_ASKED
from vlmdsl.runtime.data.draws import generator
from vlmdsl.runtime.data.fields import MaskedText
from vlmdsl.runtime.tokenizer import Tokenizer

__all__ = ["asked_places", "hide_tokens"]


def hide_tokens(texts: Sequence[MaskedText], ids: Tensor, mask: Tensor, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """The token ids `[b, L]` of `texts` with the chosen ones changed, and what they were, `NOT_ASKED` elsewhere.

    Marks and padding are never chosen, and never replace a token. ValueError if the tokenizer has no mask token.
    """
    if tokenizer.mask is None:
        raise ValueError("texts are masked, but the tokenizer has no mask token")
    words = tokenizer.words()
    may_be_chosen = mask.numpy() & ~np.isin(ids.numpy(), tokenizer.marks())
    changed = ids.numpy().copy()
    targets = np.full_like(changed, NOT_ASKED)
    for row, text in enumerate(texts):
        # Three numbers a token, in a row: how long texts may be changes no draw.
        chance, fate, choice = generator(*text.purpose).random((ids.shape[1], 3)).T
        chosen = may_be_chosen[row] & (chance < text.share)
        targets[row, chosen] = changed[row, chosen]
        hidden = chosen & (fate < text.hidden)
        replaced = chosen & ~hidden & (fate < text.hidden + text.replaced)
        changed[row, hidden] = tokenizer.mask
        changed[row, replaced] = words[(choice[replaced] * len(words)).astype(np.int64)]
    return torch.from_numpy(changed), torch.from_numpy(targets)


def asked_places(targets: Tensor, share: float) -> Tensor | None:
    """Where the tokens are that `targets` [b, L] asks for, counted row by row: [b, M], `NOT_ASKED` in places left over.

    `share` is the chance of each token. They are packed, so a row holds those of other samples too, and M is the same for
    nearly all batches of one size (`places_asked`). The one with more chosen tokens gets more places, and what was compiled
    is compiled once more. None where all L are needed.
    """
    samples, length = targets.shape
    found = (targets.flatten() != NOT_ASKED).nonzero().squeeze(1)
    places = max(places_asked(samples, length, share), math.ceil(len(found) / samples))
    if places >= length:
        return None
    asked = torch.full((samples, places), NOT_ASKED)
    asked.view(-1)[: len(found)] = found
    return asked
