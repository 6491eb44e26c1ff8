"""Queries of retrieval with their best matches, and confused classes: ranked as the measures rank them."""

from __future__ import annotations

import math

import pytest
import torch

from vlmdsl.backends.torch.values import Similarities
from vlmdsl.runtime.evaluation import Confusion, Match, best_matches
from vlmdsl.runtime.evaluation.retrieval import ranks
from vlmdsl.runtime.modules.towers import EncodedFeatures

PAIRS = torch.tensor([[0, 0], [1, 1], [2, 2], [0, 3]])


def dot(images: EncodedFeatures, texts: EncodedFeatures) -> Similarities:
    matrix = images.pooled @ texts.pooled.T
    return Similarities(matrix, matrix)


def features(rows: list[list[float]]) -> EncodedFeatures:
    return EncodedFeatures(torch.tensor(rows, dtype=torch.float32))


def test_the_best_candidates_come_first_with_the_samples_that_they_are_from() -> None:
    images, texts = features([[1, 0], [0, 1], [1, 1]]), features([[1, 0.1], [0, 1], [3, 0.2], [0.5, 0]])
    matches = best_matches(images, texts, PAIRS, dot, ([10, 11, 12], [10, 11, 12, 20]), best=2)
    assert [query.sample for query in matches.image_to_text] == [10, 11, 12]
    assert [match.sample for match in matches.image_to_text[0].matches] == [12, 10]
    assert matches.image_to_text[1].matches == (Match(11, 1.0, True), Match(12, pytest.approx(0.2), False))
    assert [query.sample for query in matches.text_to_image] == [10, 11, 12, 20]
    assert matches.text_to_image[0].matches[0] == Match(12, pytest.approx(1.1), False)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_the_measure(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    images, texts = (EncodedFeatures(torch.randn(n, 3, generator=draws).round()) for n in (3, 4))
    matches = best_matches(images, texts, PAIRS, dot, (range(3), range(4)))
    of_images, of_texts = ranks(images, texts, PAIRS, dot)
    assert [query.rank for query in matches.image_to_text] == of_images.tolist()
    assert [query.rank for query in matches.text_to_image] == of_texts.tolist()


def test_ties_and_scores_that_are_not_numbers_count_against_the_model() -> None:
    images, texts = features([[1.0], [1.0]]), features([[1.0], [1.0]])
    first, _ = best_matches(images, texts, torch.tensor([[0, 0], [1, 1]]), dot, ([0, 1], [0, 1])).image_to_text
    assert (first.rank, first.matches[0].right) == (2, False)
    wrong = features([[1.0], [math.nan]])
    first, _ = best_matches(images, wrong, torch.tensor([[0, 0], [1, 1]]), dot, ([0, 1], [0, 1])).image_to_text
    assert first.rank == 2


def test_queries_are_spread_over_all_of_them() -> None:
    many = EncodedFeatures(torch.eye(50))
    pairs = torch.arange(50)[:, None].expand(50, 2)
    matches = best_matches(many, many, pairs, dot, (range(50), range(50)), queries=3)
    assert [query.sample for query in matches.image_to_text] == [0, 24, 49]
    assert all(query.rank == 1 and query.matches[0].right for query in matches.text_to_image)


def test_confusion_counts_pairs_of_classes() -> None:
    confusion = Confusion.of(["cat", "dog"], torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 1, 1]))
    assert confusion.counts == {(0, 0): 1, (0, 1): 2, (1, 1): 1}
