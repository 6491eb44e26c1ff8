"""Retrieval: how often a match of a query is among the first K, in both directions, exactly and for any size.

The rank of a query is one more than the number of candidates that do not belong to it and score at least as high as the
best of those that do. So ties count against the model, several captions of one image are all right answers, and a score
that is not a number is never a hit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.evaluation.features import Score, block_size, blocks
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import count, take

__all__ = ["Example", "Measures", "Retrieval", "chance_of_hit", "ranks", "retrieval_recall"]


class Example(NamedTuple):
    """A sample of what was measured, to look at: an image, `uint8 [H, W, 3]`, and what is said of it."""

    pixels: np.ndarray
    text: str


@dataclass(frozen=True)
class Measures:
    """Fractions by name (`R@1`), those of a random guess on average, and the numbers that they were measured with, such as
    how many images.

    `baselines` are answers that need no learning and can be better than a random guess, such as that of the most frequent
    class: in words -> its fractions by name, of some of the measures or of all.
    """

    values: dict[str, float]
    chance: dict[str, float]
    facts: dict[str, int] = field(default_factory=dict, compare=False)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: tuple[Example, ...] = field(default=(), compare=False)
    """For a picture."""


@dataclass(frozen=True)
class Retrieval:
    """Recall in both directions over `images` images and `texts` texts."""

    images: int
    texts: int
    image_to_text: Measures
    text_to_image: Measures


def retrieval_recall(
    images: EncodedFeatures, texts: EncodedFeatures, pairs: Tensor, score: Score, cutoffs: Sequence[int] = (1, 5, 10)
) -> Retrieval:
    """Recall at each cutoff over distinct images and distinct texts.

    `pairs [p, 2]` lists which image and which text belong together, each pair once; every image and text is in at least one.
    """
    image_ranks, text_ranks = ranks(images, texts, pairs, score)
    rights = pairs[:, 0].bincount(minlength=count(images)), pairs[:, 1].bincount(minlength=count(texts))
    return Retrieval(
        images=count(images),
        texts=count(texts),
        image_to_text=_recall(image_ranks, rights[0], count(texts), cutoffs),
        text_to_image=_recall(text_ranks, rights[1], count(images), cutoffs),
    )


def ranks(
    images: EncodedFeatures, texts: EncodedFeatures, pairs: Tensor, score: Score, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The rank of each image as a query for texts `[n]`, and of each text as a query for images `[m]`, from 1.

    Blocks of at most `size` images and texts are compared at a time, twice each where they hold a pair: first for the best
    score of what belongs to a query, then for the number of others that reach it.
    """
    size = size or block_size(images, texts)
    pairs = pairs.cpu()
    best_text = torch.full((count(images),), -torch.inf, dtype=torch.float64)
    best_image = torch.full((count(texts),), -torch.inf, dtype=torch.float64)
    for rows, columns, belonging in _blocks_with_pairs(count(images), count(texts), size, pairs):
        if belonging.any():
            scores = score(take(images, rows), take(texts, columns))
            best_text[rows] = torch.maximum(best_text[rows], _where(belonging, scores.rows).amax(dim=1))
            best_image[columns] = torch.maximum(best_image[columns], _where(belonging, scores.columns).amax(dim=0))
    above_text = torch.zeros(count(images), dtype=torch.int64)
    above_image = torch.zeros(count(texts), dtype=torch.int64)
    for rows, columns, belonging in _blocks_with_pairs(count(images), count(texts), size, pairs):
        scores = score(take(images, rows), take(texts, columns))
        # "Not less" instead of "at least": NaN must count against its query.
        above_text[rows] += (~(scores.rows.cpu().double() < best_text[rows, None]) & ~belonging).sum(dim=1)
        above_image[columns] += (~(scores.columns.cpu().double() < best_image[None, columns]) & ~belonging).sum(dim=0)
    return above_text + 1, above_image + 1


def chance_of_hit(candidates: int, right: Tensor, cutoff: int) -> Tensor:
    """The probability that one of `right` candidates is among `cutoff` drawn from all, without putting back."""
    miss = torch.ones(right.shape, dtype=torch.float64)
    for drawn in range(min(cutoff, candidates)):
        miss *= (candidates - right - drawn).clamp(min=0).double() / (candidates - drawn)
    return 1.0 - miss


def _blocks_with_pairs(images: int, texts: int, size: int, pairs: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Every block, as the images, the texts, and which of them belong together (`[n, m]`, bool)."""
    for rows in blocks(images, size):
        own = pairs[(pairs[:, 0] >= rows.start) & (pairs[:, 0] < rows.stop)]
        for columns in blocks(texts, size):
            inside = own[(own[:, 1] >= columns.start) & (own[:, 1] < columns.stop)]
            belonging = torch.zeros(rows.stop - rows.start, columns.stop - columns.start, dtype=torch.bool)
            belonging[inside[:, 0] - rows.start, inside[:, 1] - columns.start] = True
            yield rows, columns, belonging


def _where(belonging: Tensor, scores: Tensor) -> Tensor:
    return scores.cpu().double().masked_fill(~belonging, -torch.inf)


def _recall(ranks: Tensor, right: Tensor, candidates: int, cutoffs: Sequence[int]) -> Measures:
    return Measures(
        values={f"R@{cutoff}": (ranks <= cutoff).double().mean().item() for cutoff in cutoffs},
        chance={f"R@{cutoff}": chance_of_hit(candidates, right, cutoff).mean().item() for cutoff in cutoffs},
    )
