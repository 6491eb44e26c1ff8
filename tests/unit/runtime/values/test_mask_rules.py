"""What the rules of masks promise: how much is masked, what never is, and that every choice is as likely."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values.mask_rules import block_mask, span_mask, whole_word_mask

SPECIAL = -1


def test_a_mask_is_a_function_of_its_key() -> None:
    one, same, other = (block_mask(generator(seed, "image"), 14, 14, budget=75) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("rows", "columns", "budget"), [(7, 12, 30), (4, 4, 3), (1, 1, 1)])
def test_blocks_stay_within_their_budget_on_any_grid(rows: int, columns: int, budget: int) -> None:
    counts = [int(block_mask(generator(run), rows, columns, budget=budget).sum()) for run in range(50)]
    assert max(counts) <= budget
    assert (rows, columns) == (1, 1) or max(counts) > 0


def test_words_are_masked_whole_and_special_tokens_never() -> None:
    words = np.array([SPECIAL, 0, 1, 1, 2, 3, 3, 3, 4, SPECIAL, SPECIAL])
    seen: Counter[int] = Counter()
    for run in range(400):
        mask = whole_word_mask(generator(run), words, share=0.4)
        assert not mask[words == SPECIAL].any()
        assert 1 <= mask.sum() <= round(0.4 * 8)
        for word in range(5):
            assert len(set(mask[words == word].tolist())) == 1
            seen[word] += bool(mask[words == word].all())
    assert all(seen[word] > 20 for word in range(5))


def test_a_text_without_words_has_nothing_to_mask() -> None:
    assert not whole_word_mask(generator(0), np.array([SPECIAL, SPECIAL]), share=0.15).any()


def test_one_token_is_masked_of_the_shortest_text() -> None:
    assert whole_word_mask(generator(0), np.array([SPECIAL, 0, 1, 2, SPECIAL]), share=0.15).sum() == 1


@pytest.mark.parametrize(
    ("length", "masked", "spans"), [(40, 6, 2), (100, 15, 5), (2, 1, 1), (4, 3, 1), (1, 0, 0), (0, 0, 0)]
)
def test_spans_have_their_number_and_their_tokens(length: int, masked: int, spans: int) -> None:
    for run in range(30):
        mask = span_mask(generator(run), length, share=0.15 if length > 4 else 0.8)
        assert mask.shape == (length,)
        assert mask.sum() == masked
        starts = mask & ~np.concatenate([[False], mask])[:length]
        assert starts.sum() == spans
        assert not mask[:1].any()


def test_every_way_to_cut_is_as_likely() -> None:
    """Of 6 tokens 3 masked in 2 spans: 2 ways to cut the masked ones, and 2 for the rest."""
    runs = 2000
    seen = Counter(tuple(span_mask(generator(run), 6, share=0.5, mean_length=1.5).tolist()) for run in range(runs))
    assert len(seen) == 4
    assert all(abs(count / runs - 0.25) < 0.04 for count in seen.values())
