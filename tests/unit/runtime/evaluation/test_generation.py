"""Decoding: greedy and beam search against every possible text, and whether captions name what is there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vlmdsl.runtime.evaluation.generation import write
from vlmdsl.runtime.evaluation.named_objects import objects_in, right_shares
from vlmdsl.runtime.evaluation.overlap import overlap
from vlmdsl.runtime.values import TextBatch

WORDS, END, LONGEST = 4, 3, 5
TABLE = torch.randn(2, WORDS, WORDS, generator=torch.Generator().manual_seed(5)) * 2


def following(texts: TextBatch, samples: Tensor) -> Tensor:
    """Each token depends on the one before, differently for each sample."""
    last = texts.ids.gather(1, texts.mask.sum(dim=1, keepdim=True) - 1)[:, 0]
    return TABLE[samples, last]


def score(sample: int, tokens: Sequence[int], ended: bool) -> float:
    """The mean log-probability of a text that begins with token 0."""
    chances = TABLE[sample].log_softmax(dim=1)
    steps = list(itertools.pairwise([0, *tokens, *([END] if ended else [])]))
    return sum(chances[before, after].item() for before, after in steps) / (len(tokens) + 1)


def start(count: int) -> TextBatch:
    return TextBatch(torch.zeros(count, 1, dtype=torch.long), torch.ones(count, 1, dtype=torch.bool))


def test_greedy_takes_the_likeliest_token_of_each_step() -> None:
    written = write(following, start(2), end=END, longest=LONGEST)
    for sample, tokens in enumerate(written.tokens):
        expected, last = [], 0
        while len(expected) < LONGEST - 1:
            last = int(TABLE[sample, last].argmax())
            if last == END:
                break
            expected.append(last)
        assert tokens == expected


def test_a_wide_search_finds_the_best_text_of_all() -> None:
    written = write(following, start(2), end=END, longest=LONGEST, beams=WORDS**LONGEST)
    for sample, tokens in enumerate(written.tokens):
        every = [
            (score(sample, text, len(text) < LONGEST - 1), list(text))
            for length in range(LONGEST)
            for text in itertools.product(range(END), repeat=length)
        ]
        assert tokens == max(every)[1]


def test_texts_of_different_lengths_are_continued_where_they_end() -> None:
    first = TextBatch(torch.tensor([[0, 1], [0, 9]]), torch.tensor([[True, True], [True, False]]))
    together = write(following, first, end=END, longest=LONGEST).tokens
    alone = write(lambda texts, samples: following(texts, samples + 1), start(1), end=END, longest=LONGEST).tokens
    assert together[1] == alone[0]


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        write(
            following, TextBatch(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.bool)), end=3, longest=4
        )


SEEN = [[{"colour": "red", "shape": "disc", "size": "big"}], [{"colour": "blue", "shape": "box", "size": "big"}] * 2]
REFERENCES = ["a red disc", "a blue box and a blue box"]


def test_objects_are_right_where_all_their_words_are() -> None:
    shares = right_shares(["a red disc", "a blue box and a red box"], REFERENCES, SEEN)
    assert shares == {"counts": 1.0, "colours": 0.5, "shapes": 1.0, "scenes": 0.5}


def test_the_right_words_in_wrong_pairs_are_not_the_right_objects() -> None:
    seen = [[{"colour": "red", "shape": "disc"}, {"colour": "blue", "shape": "box"}]]
    shares = right_shares(["a red box, a blue disc"], ["a red disc, a blue box"], seen)
    assert shares == {"counts": 1.0, "colours": 1.0, "shapes": 1.0, "scenes": 0.0}


def test_nothing_is_measured_that_references_do_not_name() -> None:
    assert right_shares(["a thing"] * 2, ["a thing"] * 2, SEEN) == {}
    assert right_shares(["a red disc"] * 2, REFERENCES, [SEEN[0], None]) == {}


@pytest.mark.parametrize("value", [None, [], [3], [{}], [{"colour": 3}], "red"])
def test_a_column_without_objects(value: object) -> None:
    assert objects_in(value) is None


def test_bleu_and_cider_of_equal_texts() -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("pycocoevalcap")
    texts = ["a red disc above a box", "a blue box beside a red disc"]
    own, other = overlap(texts, texts), overlap(texts, texts[::-1])
    assert own["BLEU"] == pytest.approx(1.0)
    assert own["CIDEr"] > 5 > other["CIDEr"]
