"""The names of boxes: which comparison of a recipe is measured, and by what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlmdsl.api.driver import build
from vlmdsl.runtime.evaluation import grounding_of
from vlmdsl.runtime.evaluation.grounding import _outline, average_precision
from vlmdsl.runtime.evaluation.phrase_scores import PhraseScores

FIELDS = "recipe r(image: Image, boxes: Boxes, phrases: Phrases)\n"
REGIONS = "let words = language(prompt(phrases, negatives=3))\nlet z = alignment(regions(image, boxes), words)\n"


def test_mean_average_precision_is_that_of_each_class_that_occurs() -> None:
    scores = torch.tensor([[0.9, 0.0, 0.5], [0.8, 0.1, 0.5], [0.7, 0.9, 0.5], [0.1, 0.8, 0.5]])
    # Members are first and third for class 0, second and third for class 1; class 2 does not occur.
    assert average_precision(scores, torch.tensor([0, 1, 0, 1])) == pytest.approx(
        ((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    )


def test_a_box_of_a_grid_of_points_is_the_point_at_its_centre() -> None:
    scores = PhraseScores(torch.arange(16.0).view(1, 16, 1))
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.9, 0.9, 1.0, 1.0]]])
    assert scores.scores_at(boxes).flatten().tolist() == [5.0, 7.0, 15.0]


def test_a_box_of_points_matched_with_boxes_is_the_most_certain_point_that_predicts_it() -> None:
    predicted = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.4, 0.5], [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 1.0, 1.0]]])
    probabilities = torch.tensor([[[0.2, 0.4], [0.6, 0.5], [0.9, 0.9], [1.0, 1.0]]])
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.6, 0.0, 1.0, 0.4]]])
    scores = PhraseScores(probabilities, predicted, matched=True)
    # The first two points predict the first box; no point predicts the second, and the third overlaps it most.
    torch.testing.assert_close(scores.scores_at(boxes), torch.tensor([[[0.6, 0.5], [0.9, 0.9]]]))
    unsure = PhraseScores(probabilities, predicted, torch.tensor([[1.0, 0.1, 0.5, 1.0]]), matched=True)
    torch.testing.assert_close(unsure.scores_at(boxes), torch.tensor([[[0.2, 0.4], [0.45, 0.45]]]))


@pytest.mark.parametrize(
    ("text", "at_points", "by_table"),
    [
        (FIELDS + REGIONS + "minimize focal(z, word_map(words, boxes))", False, False),
        ("detclip", True, False),
        ("mdetr", True, False),
        ("grounding_dino", True, False),
        ("contrast(image, text)", None, None),
    ],
)
def test_the_comparison_that_is_measured(text: str, at_points: bool | None, by_table: bool | None) -> None:
    grounding = grounding_of(build(text).planned)
    if at_points is None:
        assert grounding is None
        return
    assert grounding is not None
    assert (grounding.at_points, grounding.table is not None) == (at_points, by_table)
    assert (grounding.boxes, grounding.phrases) == ("boxes", "phrases")


def test_the_outline_of_a_box_stays_in_the_picture() -> None:
    image = np.full((8, 8, 3), 255, dtype=np.uint8)
    _outline(image, (0.5, 0.0, 1.0, 1.0))
    black = (image == 0).all(axis=2)
    assert black[0, 4:].all()
    assert black[7, 4:].all()
    assert black[:, 4].all()
    assert black[:, 7].all()
    assert not black[:, :4].any()
