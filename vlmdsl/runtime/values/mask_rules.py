"""Rules by which masks are drawn: pure functions of a random generator, for patches of an image and tokens of a text."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["block_mask", "span_mask", "whole_word_mask"]

_TRIES = 10
"""Boxes that are drawn before the mask is left as it is."""


def block_mask(
    random: np.random.Generator, rows: int, columns: int, *, budget: int, smallest: int = 16, aspect: float = 0.3
) -> np.ndarray:
    """Overlapping boxes of patches, at most `budget` of them together: bool [rows, columns], true = masked.

    A box has an area drawn evenly between `smallest` and what is left of the budget, and a ratio of its sides between
    `aspect` and 1 / `aspect`, its logarithm drawn evenly. One as long as the grid is not a box, and so is one without a new
    patch or with more than are left. After ten such in a row the mask is done, so that the number of patches varies: of 14 x
    14 with a budget of 75 it is 74.5 on average and 64 at least (BEiT, arXiv:2106.08254, its code; the paper says 40 %).
    """
    mask = np.zeros((rows, columns), dtype=bool)
    left, tries = budget, 0
    while left > 0 and tries < _TRIES:
        tries += 1
        # Where less is left than the smallest box has, the range is read backwards, as in the authors' code.
        area = _between(random, smallest, left)
        ratio = math.exp(_between(random, math.log(aspect), -math.log(aspect)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height >= rows or width >= columns:
            continue
        top = random.integers(0, rows - height, endpoint=True)
        first = random.integers(0, columns - width, endpoint=True)
        box = mask[top : top + height, first : first + width]
        new = box.size - int(box.sum())
        if 0 < new <= left:
            box[:] = True
            left, tries = left - new, 0
    return mask


def whole_word_mask(random: np.random.Generator, words: np.ndarray, share: float) -> np.ndarray:
    """All tokens of some words: bool [L]. `words [L]` is the number of each token's word, negative for special tokens and
    padding, which are never masked.

    Words come in random order until the share of the tokens is reached, at least one token; one that would exceed it is left
    out (BERT's whole-word masking, as `DataCollatorForWholeWordMask` of transformers does it).
    """
    every = np.bincount(words[words >= 0], minlength=1)
    numbers = every.nonzero()[0]
    sizes = every[numbers].tolist()
    left = max(1, round(share * sum(sizes)))
    masked = np.zeros(len(every) + 1, dtype=bool)  # of words that are numbered -1, the last one
    for word in random.permutation(len(numbers)).tolist():
        if sizes[word] <= left:
            masked[numbers[word]] = True
            left -= sizes[word]
    return masked[np.maximum(words, -1)]


def span_mask(random: np.random.Generator, length: int, share: float, mean_length: float = 3.0) -> np.ndarray:
    """Spans of tokens, the rest of the text between them: bool [length].

    As many tokens as the share is of the length, one at least and not all, in so many spans that they have the mean length;
    all ways to cut masked and unmasked tokens into these spans are equally likely, and the first token is never masked (T5,
    arXiv:1910.10683). A text of less than two tokens is left whole.
    """
    if length < 2:
        return np.zeros(length, dtype=bool)
    masked = min(max(round(length * share), 1), length - 1)
    spans = min(max(round(masked / mean_length), 1), length - masked)
    lengths = np.stack([_parts(random, length - masked, spans), _parts(random, masked, spans)], axis=1)
    return np.repeat(np.tile([False, True], spans), lengths.flatten())


def _parts(random: np.random.Generator, total: int, count: int) -> np.ndarray:
    """`count` positive numbers that sum to `total`, all such equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _between(random: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * random.random()
