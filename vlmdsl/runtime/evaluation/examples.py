"""Examples of retrieval and of classification: queries with their best matches, and which classes are confused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.evaluation.features import Score, block_size, blocks
from vlmdsl.runtime.evaluation.retrieval import Example
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import count, take

__all__ = ["BestMatches", "Confusion", "Match", "Query", "best_matches"]

_QUERIES = 6
_BEST = 5


class Match(NamedTuple):
    """A candidate of a query: the sample that it is from, its similarity, and whether it belongs to the query."""

    sample: int
    similarity: float
    right: bool


class Query(NamedTuple):
    """An image or a text of a sample, the rank of the best candidate that belongs to it, from 1, and the first matches."""

    sample: int
    rank: int
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class BestMatches:
    """Some queries of both directions with their best matches; `look` gives image and text of a sample."""

    image_to_text: tuple[Query, ...]
    text_to_image: tuple[Query, ...]
    look: Callable[[int], Example] | None = None


@dataclass(frozen=True)
class Confusion:
    """How often images of a class were given to each class: (class, predicted class) -> the number of images, without 0."""

    classes: tuple[str, ...]
    counts: Mapping[tuple[int, int], int]

    @classmethod
    def of(cls, classes: Sequence[str], labels: Tensor, predicted: Tensor) -> Confusion:
        """Those of images with the classes `labels [n]` that were given to `predicted [n]`."""
        pairs, numbers = torch.stack([labels, predicted], dim=1).unique(dim=0, return_counts=True)
        counts = {(label, other): number for (label, other), number in zip(pairs.tolist(), numbers.tolist(), strict=True)}
        return cls(tuple(classes), counts)


def best_matches(
    images: EncodedFeatures,
    texts: EncodedFeatures,
    pairs: Tensor,
    score: Score,
    samples: tuple[Sequence[int], Sequence[int]],
    *,
    queries: int = _QUERIES,
    best: int = _BEST,
) -> BestMatches:
    """The best matches of so many images and texts, every n-th of all: they are not chosen by how well they do.

    `pairs [p, 2]` and `score` are those of `retrieval_recall`; `samples` are the sample that each image, and each text, is
    from. As there, ties count against the model, and so does a score that is not a number.
    """
    of_images, of_texts = samples

    def of_rows(chosen: Tensor) -> Tensor:
        size = block_size(images, texts)
        parts = (score(take(images, chosen), take(texts, part)).rows.cpu() for part in blocks(count(texts), size))
        return torch.cat(list(parts), dim=1)

    def of_columns(chosen: Tensor) -> Tensor:
        size = block_size(images, texts)
        parts = (score(take(images, part), take(texts, chosen)).columns.cpu() for part in blocks(count(images), size))
        return torch.cat(list(parts), dim=0).T

    return BestMatches(
        _queries(of_rows, pairs, of_images, of_texts, queries, best),
        _queries(of_columns, pairs.flip(1), of_texts, of_images, queries, best),
    )


def _queries(
    scores_of: Callable[[Tensor], Tensor],
    pairs: Tensor,
    own: Sequence[int],
    others: Sequence[int],
    queries: int,
    best: int,
) -> tuple[Query, ...]:
    """Queries of one direction; the first column of `pairs` are the queries, `scores_of` gives `[q, candidates]`."""
    chosen = torch.linspace(0, len(own) - 1, min(queries, len(own))).round().long()
    scores = scores_of(chosen).double().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    result: list[Query] = []
    for place, row in zip(chosen.tolist(), scores, strict=True):
        right = torch.zeros(len(others), dtype=torch.bool)
        right[pairs[pairs[:, 0] == place, 1]] = True
        rank = 1 + int(((row >= row[right].max()) & ~right).sum())
        # Of equals those that do not belong to the query first, as the rank counts them.
        order = np.lexsort((right.numpy(), -row.numpy()))[:best].tolist()
        matches = tuple(Match(others[other], row[other].item(), bool(right[other])) for other in order)
        result.append(Query(own[place], rank, matches))
    return tuple(result)
