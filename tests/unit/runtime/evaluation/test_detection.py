"""Predicted boxes with phrases: which are kept of those that points predict, and COCO's average precision of them."""

from __future__ import annotations

import sys

import pytest
import torch

from vlmdsl.api.driver import build
from vlmdsl.backends.torch.ops.detection import giou
from vlmdsl.backends.torch.values import TokenFeatures
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Program
from vlmdsl.ir.operations.modules import APPLY
from vlmdsl.runtime.evaluation.detection import (
    BoxPrediction,
    Detections,
    best_detections,
    box_prediction_of,
    coco_precision,
)
from vlmdsl.runtime.evaluation.phrase_scores import PhraseScores

LEFT, RIGHT = [0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 1.0, 1.0]


def image(boxes: list[list[float]], phrases: list[int], scores: list[float] | None = None) -> Detections:
    scored = None if scores is None else torch.tensor(scores)
    return Detections(torch.tensor(boxes).view(-1, 4), torch.tensor(phrases, dtype=torch.int64), scored)


@pytest.fixture
def coco() -> None:
    pytest.importorskip("pycocotools", reason="the extra `detection` is not installed")


def test_perfect_boxes_have_an_average_precision_of_one(coco: None, capsys: pytest.CaptureFixture[str]) -> None:
    truth = [image([LEFT, RIGHT], [3, 7]), image([RIGHT], [3]), image([], [])]
    predicted = [image([LEFT, RIGHT], [3, 7], [0.9, 0.8]), image([RIGHT], [3], [0.3]), image([], [], [])]
    assert coco_precision(predicted, truth) == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}
    assert capsys.readouterr().out == ""


def test_average_precision_by_hand(coco: None) -> None:
    shifted = [0.0, 0.0, 0.4, 0.25]  # overlaps by 0.625: right for 0.50, 0.55 and 0.60
    truth = [image([LEFT], [0]), image([RIGHT], [0])]
    # The most certain one has a phrase that no true box has, the next is near no box.
    predicted = [image([shifted, [0.5, 0.0, 0.9, 0.3]], [0, 0], [0.8, 0.9]), image([RIGHT], [1], [0.99])]
    measured = coco_precision(predicted, truth)
    # Of phrase 0 a false positive comes first: precision 1/2 up to recall 1/2, which is 51 of 101 points.
    assert measured["AP50"] == pytest.approx(51 / 101 / 2)
    assert measured["AP75"] == 0
    assert measured["AP"] == pytest.approx(0.3 * 51 / 101 / 2)


def test_without_a_prediction_or_a_true_box(coco: None) -> None:
    assert coco_precision([image([], [], [])], [image([LEFT], [0])]) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    assert coco_precision([image([LEFT], [0], [0.5])], [image([], [])]) == {}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(DiagnosticError) as caught:
        coco_precision([image([], [], [])], [image([LEFT], [0])])
    assert caught.value.diagnostics[0].code == "V0901"
    assert "vlmdsl[detection]" in str(caught.value.diagnostics[0].help)


def test_of_boxes_of_one_phrase_that_overlap_the_best_stays() -> None:
    boxes = torch.tensor([LEFT, [0.0, 0.0, 0.4, 0.38], RIGHT])
    scores = torch.tensor([[0.6, 0.1], [0.9, 0.3], [0.2, 0.7]])
    best = best_detections(scores, boxes, suppress=True)
    assert list(zip(best.phrases.tolist(), best.boxes[:, 0].tolist(), strict=True)) == [
        (0, 0.0), (1, pytest.approx(0.6)), (1, 0.0), (0, pytest.approx(0.6)),
    ]  # fmt: skip
    assert best.scores is not None
    torch.testing.assert_close(best.scores, torch.tensor([0.9, 0.7, 0.3, 0.2]))
    assert len(best_detections(scores, boxes, suppress=False).phrases) == 6


def test_at_most_a_hundred_of_an_image_count() -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(36, 2, generator=random)
    boxes = torch.cat([corners, corners + 0.01], dim=1)
    scores = torch.rand(36, 9, generator=random)
    best = best_detections(scores, boxes, suppress=True)
    assert best.scores is not None
    torch.testing.assert_close(best.scores, scores.flatten().sort(descending=True).values[:100])


def test_predicted_boxes_are_those_that_the_loss_compares() -> None:
    """Numbers for which the loss of a recipe is 0 are decoded to the annotated box."""
    box = torch.tensor([[[0.2, 0.3, 0.7, 0.6]]], dtype=torch.float64)
    side, scale = 4, 2.0
    centres = (torch.arange(side) + 0.5) / side
    down, across = torch.meshgrid(centres, centres, indexing="ij")
    anchor = scale / side
    offsets = torch.stack([0.45 - across, 0.45 - down], dim=-1).flatten(0, 1).double() / anchor * 10
    sizes = 5 * (torch.tensor([0.5, 0.3], dtype=torch.float64) / anchor).log().expand(16, 2)
    deltas = torch.cat([offsets, sizes], dim=1)[None]
    assigned = torch.where(torch.arange(16) == 6, 0, -1)[None]
    assert giou(TokenFeatures(deltas), box, assigned, scale=scale) < 1e-6
    node = next(iter(build("glip").planned.nodes()))
    torch.testing.assert_close(BoxPrediction(node, scale).boxes(deltas), box.float().expand(1, 16, 4))
    logits = torch.tensor([0.45, 0.45, 0.5, 0.3]).logit()
    torch.testing.assert_close(BoxPrediction(node).boxes(logits), box.float()[0, 0])


def test_a_point_is_sure_of_a_box_by_its_centreness_or_by_no_object() -> None:
    prediction = BoxPrediction(next(iter(build("glip").planned.nodes())))
    torch.testing.assert_close(prediction.confidence(torch.tensor([[[0.3]]]).logit()), torch.tensor([[0.3]]))
    torch.testing.assert_close(prediction.confidence(torch.tensor([[[0.2, 0.1, 0.7]]]).log()), torch.tensor([[0.3]]))


@pytest.mark.parametrize(
    ("recipe", "scale", "certain"), [("glip", 8, True), ("mdetr", None, True), ("grounding_dino", None, False)]
)
def test_what_a_recipe_predicts_boxes_by(recipe: str, scale: float | None, certain: bool) -> None:
    program: Program = build(recipe).planned
    prediction = box_prediction_of(program)
    assert prediction is not None
    places = prediction.places
    assert (places if scale else places.inputs[0]).operation is APPLY
    assert (prediction.scale, prediction.certain_by is not None) == (scale, certain)
    assert box_prediction_of(build("clip").planned) is None


def test_detections_are_ranked_by_probability_and_confidence() -> None:
    scores = PhraseScores(
        torch.tensor([[[0.9], [0.4]]]), torch.tensor([[LEFT, RIGHT]]), torch.tensor([[0.1, 0.9]]), matched=False
    )
    (best,) = scores.detections()
    assert best.scores is not None
    torch.testing.assert_close(best.scores, torch.tensor([0.6, 0.3]))
