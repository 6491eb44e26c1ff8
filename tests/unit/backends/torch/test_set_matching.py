"""Patches matched one to one with boxes, where the oracle does not reach."""

from __future__ import annotations

import torch

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops import set_matching


def test_padded_boxes_are_matched_with_nothing_and_more_boxes_than_predictions_are_left_over() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.0] * 4, [0.5, 0.5, 1.0, 1.0]], [[0.0, 0.0, 1.0, 1.0]] * 3])
    predicted = torch.tensor([[[0.75, 0.75, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]]] * 2)
    affinity = torch.zeros(2, 2, 3)
    at = set_matching.hungarian(affinity, predicted, boxes, affinity_weight=1.0, l1_weight=5.0, giou_weight=2.0)
    assert at[0].tolist() == [2, 0]
    assert len(set(at[1].tolist())) == 2


def test_a_sample_without_boxes_has_no_loss_but_that_of_no_object() -> None:
    torch.manual_seed(0)
    boxes, words = torch.zeros(2, 1, 4), ops.WordMap(torch.zeros(2, 1, 3, dtype=torch.bool))
    classes, places = (ops.tokens(torch.randn(2, 4, size, requires_grad=True), None) for size in (4, 4))
    at = ops.match_boxes(classes, places, words, boxes, affinity=1.0, l1=5.0, giou=2.0)
    assert bool((at == -1).all())
    for loss in (ops.box_error(places, boxes, at), ops.matched_iou(places, boxes, at)):
        assert loss == 0
        (gradient,) = torch.autograd.grad(loss, places.values)
        assert not gradient.any()
    expected = -0.1 * classes.values.log_softmax(dim=2)[..., -1].sum()
    torch.testing.assert_close(ops.soft_token_loss(classes, words, boxes, at), expected)
    target = ops.assigned_words(words, at)
    assert ops.token_contrast_loss(torch.randn(2, 4, 3), target, boxes) == 0


def test_words_beyond_the_positions_are_cut_off_and_fewer_are_filled_up() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    classes, at = ops.tokens(torch.zeros(1, 1, 3), None), torch.tensor([[0]])
    for length in (1, 5):
        words = ops.WordMap(torch.ones(1, 1, length, dtype=torch.bool))
        torch.testing.assert_close(
            ops.soft_token_loss(classes, words, boxes, at), torch.log(torch.tensor(3.0)), rtol=1e-5, atol=0
        )


def test_a_prediction_is_matched_by_the_words_that_it_is_sure_of() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    words = ops.WordMap(torch.tensor([[[True, False], [False, True]]]))
    logits, places = torch.tensor([[[-3.0, 3.0], [3.0, -3.0]]]), ops.tokens(torch.zeros(1, 2, 4), None)
    at = ops.match_boxes(logits, places, words, boxes, affinity=2.0, l1=5.0, giou=2.0)
    assert at.tolist() == [[1, 0]]


def test_patches_predict_boxes_around_them_until_they_learn_others() -> None:
    numbers = torch.zeros(1, 4, 4)
    numbers[0, 3, 2:] = 1.0
    places = ops.around_patches(ops.tokens(numbers, None), size=0.25)
    predicted = places.values.sigmoid()[0]
    torch.testing.assert_close(predicted[:, :2], torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]))
    torch.testing.assert_close(predicted[:3, 2:], torch.full((3, 2), 0.25))
    assert bool((predicted[3, 2:] > 0.25).all())
    boxes = torch.tensor([[[0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0]]])
    words = ops.WordMap(torch.ones(1, 2, 1, dtype=torch.bool))
    at = ops.match_boxes(torch.zeros(1, 4, 1), places, words, boxes, affinity=1.0, l1=5.0, giou=2.0)
    assert at.tolist() == [[-1, 0, 1, -1]]
