"""Ranks and recall against the definition, whatever the blocks; chance against counting."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdsl.backends.torch.values import Similarities
from vlmdsl.runtime.evaluation import retrieval_recall
from vlmdsl.runtime.evaluation.features import block_size
from vlmdsl.runtime.evaluation.retrieval import chance_of_hit, ranks
from vlmdsl.runtime.modules.towers import EncodedFeatures


@st.composite
def tasks(draw):
    """Score matrices of few levels (so that there are ties) for both directions, and who belongs to whom."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    levels = st.lists(st.integers(-2, 2), min_size=n * m, max_size=n * m)
    rows, columns = (torch.tensor(draw(levels), dtype=torch.float64).view(n, m) for _ in range(2))
    extra = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, m - 1)), max_size=8))
    pairs = {(i, i % m) for i in range(n)} | {(j % n, j) for j in range(m)} | set(extra)
    return rows, columns, torch.tensor(sorted(pairs))


def numbered(count):
    """Features that carry their own number, for a score that looks numbers up."""
    return EncodedFeatures(pooled=torch.arange(count)[:, None])


def looked_up(rows, columns):
    def score(images, texts):
        index = images.pooled, texts.pooled.T
        return Similarities(rows[index], columns[index])

    return score


def rank_by_definition(scores, right):
    best = max(scores[j] for j in right)
    return 1 + sum(score >= best for j, score in enumerate(scores) if j not in right)


@given(tasks(), st.integers(1, 8))
@settings(deadline=None)
def test_ranks_follow_the_definition_for_any_block_size(task, size):
    rows, columns, pairs = task
    by_side = ranks(numbered(len(rows)), numbered(rows.shape[1]), pairs, looked_up(rows, columns), size)
    belongs = set(map(tuple, pairs.tolist()))
    for i, scores in enumerate(rows.tolist()):
        assert by_side[0][i] == rank_by_definition(scores, {j for k, j in belongs if k == i})
    for j, scores in enumerate(columns.T.tolist()):
        assert by_side[1][j] == rank_by_definition(scores, {i for i, k in belongs if k == j})


def test_recall_of_a_worked_example():
    """Three images, three texts; image 0 finds its text at once, image 1 behind one other, image 2 ties with one."""
    scores = torch.tensor([[3.0, 1.0, 2.0], [2.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    pairs = torch.arange(3)[:, None].expand(3, 2)
    recall = retrieval_recall(numbered(3), numbered(3), pairs, looked_up(scores, scores), cutoffs=(1, 2))
    assert recall.image_to_text.values == pytest.approx({"R@1": 1 / 3, "R@2": 1.0})
    assert recall.text_to_image.values == pytest.approx({"R@1": 1 / 3, "R@2": 1.0})
    assert recall.image_to_text.chance == pytest.approx({"R@1": 1 / 3, "R@2": 2 / 3})


def test_equal_scores_everywhere_are_not_a_success():
    scores = torch.zeros(20, 20)
    pairs = torch.arange(20)[:, None].expand(20, 2)
    recall = retrieval_recall(numbered(20), numbered(20), pairs, looked_up(scores, scores))
    assert set(recall.image_to_text.values.values()) == {0.0}


def test_a_score_that_is_not_a_number_is_not_a_success():
    scores = torch.eye(20)
    scores[4] = torch.nan
    pairs = torch.arange(20)[:, None].expand(20, 2)
    image_ranks, text_ranks = ranks(numbered(20), numbered(20), pairs, looked_up(scores, scores))
    assert image_ranks[4] == 20
    assert text_ranks[4] == 20
    assert image_ranks[5] == 1
    assert text_ranks[5] == 2  # image 4 could be anything, so it counts against the query


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))
def test_chance_is_the_share_of_draws_that_hit(candidates, right, cutoff):
    right = min(right, candidates)
    draws = list(combinations(range(candidates), min(cutoff, candidates)))
    hits = sum(min(draw) < right for draw in draws)
    assert chance_of_hit(candidates, torch.tensor([right]), cutoff).item() == pytest.approx(hits / len(draws), abs=1e-12)


def test_random_scores_reach_chance():
    torch.manual_seed(0)
    scores = torch.randn(1500, 500)
    pairs = torch.stack([torch.arange(1500), torch.arange(1500) % 500], dim=1)
    recall = retrieval_recall(numbered(1500), numbered(500), pairs, looked_up(scores, scores))
    for measures in (recall.image_to_text, recall.text_to_image):
        for name, chance in measures.chance.items():
            assert measures.values[name] == pytest.approx(chance, abs=4 * (chance / 500) ** 0.5)


def test_blocks_of_tokens_fit_in_memory():
    pooled = EncodedFeatures(pooled=torch.zeros(1, 4))
    images, texts = EncodedFeatures(tokens=torch.zeros(1, 196, 4)), EncodedFeatures(tokens=torch.zeros(1, 77, 4))
    assert block_size(pooled, pooled) == 2048
    assert block_size(images, texts) ** 2 * 196 * 77 <= 2**24
    assert block_size(images, texts) > 10
