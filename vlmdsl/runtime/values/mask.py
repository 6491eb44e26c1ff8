"""Masks: the selected tokens of a text and their replacements, and the kept patches of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlmdsl.planning.masked import places_asked
from vlmdsl.primitives.masks import BLOCKS, SPANS, WHOLE_WORDS
from vlmdsl.primitives.plugins.function import described, implementation, unfit
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values.mask_rules import block_mask, span_mask, whole_word_mask
from vlmdsl.runtime.values.text import TextBatch, TextFormat

__all__ = [
    "NOT_SELECTED",
    "KeptPatches",
    "MaskedText",
    "MaskedTokens",
    "OwnTexts",
    "ReplacedPatches",
    "selected_places",
    "dropped_first",
    "hide_tokens",
    "kept",
    "masked_batch",
    "replaced",
    "token_ids",
]

NOT_SELECTED = -100
"""In place of a token that no mask selected."""


class MaskedTokens(NamedTuple):
    """What a mask selected of texts, beside the texts as they are left.

    `targets [b, L]`, int64: what the selected tokens were, `NOT_SELECTED` elsewhere. `places [b, M]`, int64: where they are,
    counted row by row over all texts, `NOT_SELECTED` in places left over; None where M would be L. Places are packed: a row
    holds those of other texts too, so that some of the samples are packed again.
    """

    targets: Tensor
    places: Tensor | None = None

    def selected(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of `states [b, L, W]` those at the places, `[b, M, W]`, and what the tokens there were, `[b, M]`; all without
        places.

        A place left over holds some state, which `NOT_SELECTED` keeps out of every criterion, and so out of its gradient.
        """
        if self.places is None:
            return states, self.targets
        indices = self.places.flatten().clamp(min=0)
        targets = self.targets.flatten().index_select(0, indices).view_as(self.places)
        picked = states.flatten(0, 1).index_select(0, indices).view(*self.places.shape, states.shape[2])
        return picked, torch.where(self.places == NOT_SELECTED, NOT_SELECTED, targets)

    def of_samples(self, indices: slice | Tensor) -> MaskedTokens:
        """The texts at these indices (`tuples.take`), with as many places for each at least."""
        return MaskedTokens.packed(self.targets[indices], self.width)

    def followed_by(self, others: Sequence[MaskedTokens]) -> MaskedTokens:
        """These texts, then those of `others` (`tuples.cat`); shorter ones are padded with tokens that are not selected."""
        every = [self, *others]
        longest = max(value.targets.shape[1] for value in every)
        padded = [
            functional.pad(value.targets, (0, longest - value.targets.shape[1]), value=NOT_SELECTED) for value in every
        ]
        return MaskedTokens.packed(torch.cat(padded), max(value.width for value in every))

    @property
    def width(self) -> int:
        """M: how many places there are per text; L where all are."""
        return (self.targets if self.places is None else self.places).shape[1]

    @classmethod
    def packed(cls, targets: Tensor, width: int) -> MaskedTokens:
        """These targets in `width` places per text, or more where more are selected."""
        return cls(targets, _packed_places(targets, width) if len(targets) else None)


def token_ids(text: TextBatch, masked: MaskedTokens | None) -> Tensor:
    """The ids of all tokens of texts as they were before any was masked, `NOT_SELECTED` at padding: [b, L]."""
    ids = text.ids if masked is None else torch.where(masked.targets == NOT_SELECTED, text.ids, masked.targets)
    return torch.where(text.mask, ids, NOT_SELECTED)


class KeptPatches(NamedTuple):
    """The patches of images that a tower sees where others are dropped: `places [b, K]`, int64, counted row by row."""

    places: Tensor

    def dropped(self, patches: int) -> Tensor:
        """Which of so many patches are not among them: bool `[b, patches]`.

        >>> KeptPatches(torch.tensor([[2, 0]])).dropped(4).tolist()
        [[False, True, False, True]]
        """
        dropped = torch.ones(len(self.places), patches, dtype=torch.bool, device=self.places.device)
        return dropped.scatter(1, self.places, False)


class OwnTexts(NamedTuple):
    """Which texts are those of their samples, and not swapped with others: `own [b]`, bool."""

    own: Tensor


class ReplacedPatches(NamedTuple):
    """The patches of images that a token replaces: `replaced [b, P]`, bool, row by row."""

    replaced: Tensor


@dataclass(frozen=True, slots=True)
class MaskedText:
    """A text of whose tokens a `share` is selected, each by itself: of these the share `hidden` become the mask token,
    `replaced` become a random one, the rest stay. `purpose` is the key of its draws. Where `by` names the mask of a plug-in,
    its function selects them, with these `arguments`."""

    text: str
    share: float
    hidden: float
    replaced: float
    purpose: tuple[int | str, ...]
    by: str = ""
    arguments: tuple[tuple[str, object], ...] = ()


def masked_batch(texts: Sequence[MaskedText], form: TextFormat) -> tuple[TextBatch, MaskedTokens]:
    """The texts with the selected tokens changed, in the form of a tower, and what they were."""
    changed, targets = hide_tokens(texts, form)
    return changed, MaskedTokens(targets, selected_places(targets, texts[0].share))


def hide_tokens(texts: Sequence[MaskedText], form: TextFormat) -> tuple[TextBatch, Tensor]:
    """The tokens of `texts` with the selected ones changed, and what they were `[b, L]`, `NOT_SELECTED` elsewhere.

    All texts are masked by one mask. Special tokens and padding are never selected, and never replace a token. ValueError if
    the tokenizer has no mask token.
    """
    tokenizer = form.tokenizer
    if tokenizer.mask is None:
        raise ValueError("texts are masked, but the tokenizer has no mask token")
    plain, words = form.encode([text.text for text in texts]), tokenizer.words()
    ids = plain.ids.numpy()
    selectable = plain.mask.numpy() & ~np.isin(ids, tokenizer.marks())
    # Three numbers for each token, in a row: how long texts may be changes no draw.
    draws = np.stack([generator(*text.purpose).random((ids.shape[1], 3)) for text in texts])
    chance, fate, choice = np.moveaxis(draws, 2, 0)
    selected = selectable & _selected(texts, selectable, chance, form)
    hidden = selected & (fate < texts[0].hidden)
    replaced = selected & ~hidden & (fate < texts[0].hidden + texts[0].replaced)
    changed = ids.copy()
    changed[hidden] = tokenizer.mask
    changed[replaced] = words[(choice[replaced] * len(words)).astype(np.int64)]
    targets = np.where(selected, ids, NOT_SELECTED)
    return plain._replace(ids=torch.from_numpy(changed)), torch.from_numpy(targets)


def _selected(texts: Sequence[MaskedText], selectable: np.ndarray, chance: np.ndarray, form: TextFormat) -> np.ndarray:
    """The tokens that the mask of the texts selects, among them some that are not `selectable`: bool [b, L]; `chance [b, L]`
    are even draws."""
    by, share = texts[0].by, texts[0].share
    if not by:
        return chance < share
    if by == WHOLE_WORDS:
        words = _words_of([text.text for text in texts], form)
        rows = [whole_word_mask(generator(*text.purpose, by), row, share) for text, row in zip(texts, words, strict=True)]
    else:
        rule = _in_spans if by == SPANS else _by_function
        rows = [rule(text, row) for text, row in zip(texts, selectable, strict=True)]
    return np.stack(rows)


def _words_of(texts: Sequence[str], form: TextFormat) -> np.ndarray:
    """The number of the word, as blanks separate them, that each token is part of; -1 of special tokens and padding: int64
    [b, L]."""
    numbers = np.full((len(texts), form.length), -1)
    for row, (text, (first, last)) in enumerate(zip(texts, form.characters_of(texts), strict=True)):
        begins = [not here.isspace() and before.isspace() for before, here in pairwise(f" {text}")]
        of_characters = np.cumsum(begins, dtype=np.int64) - 1
        tokens = last > first
        numbers[row, tokens] = of_characters[last[tokens] - 1]
    return numbers


def _in_spans(text: MaskedText, selectable: np.ndarray) -> np.ndarray:
    """Spans of the tokens that may be selected: bool [L]. Tokens on both sides of one that may not are beside each other."""
    mean_length = float(str(dict(text.arguments)["mean_length"]))
    selected = np.zeros_like(selectable)
    random = generator(*text.purpose, text.by)
    selected[selectable] = span_mask(random, int(selectable.sum()), text.share, mean_length)
    return selected


def _by_function(text: MaskedText, selectable: np.ndarray) -> np.ndarray:
    """The tokens of a text that the mask of a plug-in selects: bool [L]; V0216 where it returns something else."""
    function = implementation(text.by)
    selected = function(selectable.copy(), generator(*text.purpose, text.by), share=text.share, **dict(text.arguments))
    if not isinstance(selected, np.ndarray) or selected.shape != selectable.shape or selected.dtype != np.bool_:
        raise unfit(function, f"returns {described(selected)} instead of an array of {len(selectable)} bool")
    return selected


def selected_places(targets: Tensor, share: float) -> Tensor | None:
    """Where the selected tokens of `targets` [b, L] are, counted row by row: [b, M], `NOT_SELECTED` in places left over.

    `share` is the chance of each token. They are packed, so a row holds those of other samples too, and M is the same for
    nearly all batches of one size (`places_asked`). One with more selected tokens gets more places, and what was compiled is
    compiled once more. None where all L are needed.
    """
    samples, length = targets.shape
    return _packed_places(targets, places_asked(samples, length, share))


def _packed_places(targets: Tensor, places: int) -> Tensor | None:
    """Where the selected tokens are, in so many `places` per sample or more; None where all L are needed."""
    samples, length = targets.shape
    positions = (targets.flatten() != NOT_SELECTED).nonzero().squeeze(1)
    places = max(places, math.ceil(len(positions) / samples))
    if places >= length:
        return None
    packed = torch.full((samples, places), NOT_SELECTED, device=targets.device)
    packed.view(-1)[: len(positions)] = positions
    return packed


def dropped_first(name: str, patches: int, random: np.random.Generator, attributes: Mapping[str, object]) -> np.ndarray:
    """A number for each patch by the function of a plug-in, [L]; those with the largest are dropped. V0216 if it returns
    something else."""
    function, side = implementation(name), math.isqrt(patches)
    numbers = function((side, side), random, share=attributes["share"], **dict(_arguments(attributes)))
    if not isinstance(numbers, np.ndarray) or numbers.shape != (side, side) or not np.isfinite(numbers).all():
        raise unfit(function, f"returns {described(numbers)} instead of a finite number for each of {side} x {side} patches")
    return numbers.reshape(-1)


def kept(noise: np.ndarray, share: float) -> np.ndarray:
    """The places `int64 [K]` of the K = int(L (1 - share)) smallest of `noise [L]`, from the smallest on.

    With even noise every set of K patches is as likely (MAE, arXiv:2111.06377; FLIP, arXiv:2212.00794).

    >>> kept(np.array([0.4, 0.1, 0.9, 0.3]), share=0.5).tolist()
    [1, 3]
    """
    return np.argsort(noise, kind="stable")[: int(len(noise) * (1 - share))]


def replaced(patches: int, random: np.random.Generator, attributes: Mapping[str, object]) -> np.ndarray:
    """Which patches of a square grid a mask selects to be replaced: bool [patches].

    `blocks` are those of `mask_rules.block_mask`; any other mask selects those that it would drop.
    """
    share, by = float(str(attributes["share"])), str(attributes.get("by", ""))
    if by == BLOCKS:
        side, arguments = math.isqrt(patches), dict(_arguments(attributes))
        budget, smallest = (max(1, round(part * patches)) for part in (share, float(str(arguments["smallest"]))))
        aspect = float(str(arguments["aspect"]))
        return block_mask(random, side, side, budget=budget, smallest=smallest, aspect=aspect).reshape(-1)
    noise = dropped_first(by, patches, random, attributes) if by else random.random(patches)
    selected = np.ones(patches, dtype=bool)
    selected[kept(noise, share)] = False
    return selected


def _arguments(attributes: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    arguments = attributes.get("arguments", ())
    assert isinstance(arguments, tuple)
    return arguments
