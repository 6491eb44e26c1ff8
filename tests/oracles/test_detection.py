"""Assignment of points to boxes and losses of predicted boxes: those of GLIP's detector, and the total of DetCLIP."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oracles.test_region_words import run, tensors_of
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops import set_matching
from vlmdsl.backends.torch.ops.detection import (
    _decoded,
    assigned_words,
    atss_of,
    box_loss_of,
    centreness_of,
    generalised_iou,
)


def terms_of_glip(
    boxes: Tensor,
    words: Tensor,
    mask: Tensor,
    anchors: Tensor,
    deltas: Tensor,
    central: Tensor,
    logits: Tensor,
    sizes: list[int],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The box of each anchor, and the three terms."""
    at = atss_of(anchors, sizes, boxes, topk=9, pixel=1.0, inside=0.01)
    return at, {
        "token": ops.focal(logits, assigned_words(ops.WordMap(words, mask), at)),
        "reg": 2 * box_loss_of(deltas, anchors, boxes, at, pixel=1.0),
        "centerness_loss": centreness_of(central, anchors, boxes, at),
    }


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        ("glip-atss", False),
        ("glip-atss_nopositive", False),
        pytest.param("glip-atss", True, marks=pytest.mark.slow),
    ],
    ids=["glip-atss", "glip-atss_nopositive", "compiled"],
)
def test_the_detector_of_glip_is_the_authors(name: str, compiled: bool) -> None:
    tensors = tensors_of(name)
    counts = tensors["boxes_per_image"].tolist()
    samples, most, length = len(counts), max(counts), tensors["text_mask"].shape[1]
    boxes = torch.zeros(samples, most, 4, dtype=torch.float64)
    words, labels = torch.zeros(samples, most, length, dtype=torch.bool), torch.zeros(samples, most, dtype=torch.int64)
    for row, (count, start) in enumerate(zip(counts, [0, *torch.tensor(counts).cumsum(0).tolist()], strict=False)):
        own = slice(start, start + count)
        boxes[row, :count], labels[row, :count] = tensors["boxes"][own], tensors["labels"][own]
        words[row, :count] = tensors["positive_map"][own] > 0
    leaves = {key: tensors[key].requires_grad_() for key in ("box_regression", "centerness", "dot_product_logits")}
    fixed, sizes = (boxes, words, tensors["text_mask"] > 0, tensors["anchors"]), tensors["level_sizes"].tolist()
    at, terms = run(terms_of_glip, compiled, *fixed, *leaves.values(), sizes=sizes)
    named = assigned_words(ops.WordMap(words), at).words
    # Theirs names the last token, which is padding, where there is no box.
    assert torch.equal(named[at >= 0], tensors["out_token_targets"][at >= 0] > 0)
    decoded = _decoded(tensors["out_reg_targets"], tensors["anchors"], 1.0)
    for image, own in enumerate(at):
        torch.testing.assert_close(decoded[image, own >= 0], boxes[image, own[own >= 0]], rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.where(at >= 0, labels.gather(1, at.clamp(min=0)), 0), tensors["out_assigned_labels"])
    for key, value in terms.items():
        torch.testing.assert_close(value.detach(), tensors[f"out_{key}"], rtol=1e-9, atol=0)
    torch.stack(list(terms.values())).sum().backward()
    for key, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, tensors[f"grad_{key}"], rtol=1e-9, atol=1e-13)


def test_the_centreness_of_detclip_is_the_papers() -> None:
    """Each point has a box of which it is as central as the oracle says: c^2 from its left edge, 1 from the others."""
    tensors = tensors_of("detclip-total")
    positive, target = tensors["targets"].any(dim=2), tensors["centerness_target"]
    ones = torch.ones_like(target)
    boxes = torch.stack([-target.square(), -ones, ones, ones], dim=2)
    at = torch.where(positive, torch.arange(target.shape[1]), -1)
    logits = tensors["centerness"].requires_grad_()
    points = torch.zeros(target.shape[1], 4, dtype=torch.float64)
    loss = centreness_of(logits, points, boxes, at)
    torch.testing.assert_close(loss.detach(), tensors["out_centerness_loss"], rtol=1e-9, atol=0)
    loss.backward()
    torch.testing.assert_close(logits.grad, tensors["grad_centerness"], rtol=1e-9, atol=1e-13)
    total = tensors["out_align"] + tensors["out_centerness_loss"] + 2 * tensors["out_reg"]
    torch.testing.assert_close(total, tensors["out_total"], rtol=1e-12, atol=0)


def test_the_box_term_of_detclip_is_the_papers() -> None:
    tensors = tensors_of("detclip-total")
    positive = tensors["targets"].any(dim=2)
    weights = torch.where(positive, tensors["centerness_target"], 0.0)
    losses = 1 - generalised_iou(tensors["pred_boxes"], tensors["target_boxes"])
    # The 1e-7 that GLIP adds to areas is in ours, not in the oracle's.
    torch.testing.assert_close((weights * losses).sum() / weights.sum(), tensors["out_reg"], rtol=1e-8, atol=0)


def test_on_a_grid_a_box_is_for_the_patches_at_its_centre() -> None:
    boxes = torch.tensor([[[0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.0, 0.0]]])
    points = ops.tokens(torch.zeros(1, 64, 3), None)
    at = ops.atss(points, boxes, topk=4, scale=4.0).view(8, 8)
    assert (at >= 0).nonzero().tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]
    words = ops.WordMap(torch.tensor([[[True, False], [False, True]]]), None, torch.tensor([[True, False]]))
    assert ops.assigned_words(words, at.view(1, 64)).words.sum(dim=(0, 1)).tolist() == [4, 0]


def test_a_box_that_is_predicted_exactly_has_no_loss() -> None:
    boxes, at = torch.tensor([[[0.25, 0.25, 0.75, 0.75]]]), torch.full((1, 64), -1)
    at[0, 27] = 0  # its anchor is centred 1/16 to the left of the box and above it, and as large
    deltas = torch.zeros(1, 64, 4)
    deltas[0, 27, :2] = 10 * (1 / 16) / 0.5
    assert ops.giou(ops.tokens(deltas, None), boxes, at, scale=4.0).abs() < 1e-6


def terms_of_mdetr(
    boxes: Tensor, words: Tensor, logits: Tensor, predicted: Tensor, queries: Tensor, tokens: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The box of each prediction, and the four terms, without their weights."""
    affinity = set_matching.token_affinity(logits, words)
    at = set_matching.hungarian(affinity, predicted, boxes, affinity_weight=1.0, l1_weight=5.0, giou_weight=2.0)
    objects, named = (ops.normalize(ops.tokens(each, None)) for each in (queries, tokens))
    count, target = set_matching.box_count(boxes), assigned_words(ops.WordMap(words), at)
    return at, {
        "ce": set_matching.soft_tokens(logits, words, at, count),
        "bbox": set_matching.absolute_error(predicted, boxes, at, count),
        "giou": set_matching.matched_giou(predicted, boxes, at, count),
        "contrastive_align": set_matching.token_contrast(ops.alignment(objects, named) / 0.07, target, count),
    }


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_the_criterion_of_mdetr_is_the_authors(compiled: bool) -> None:
    tensors = tensors_of("mdetr-criterion")
    counts, length = tensors["boxes_per_image"].tolist(), tensors["token_positive"].shape[1]
    boxes = torch.zeros(len(counts), max(counts), 4, dtype=torch.float64)
    words = torch.zeros(len(counts), max(counts), length, dtype=torch.bool)
    for row, own in enumerate(torch.arange(sum(counts)).split(counts)):
        boxes[row, : len(own)] = set_matching.corners(tensors["boxes"][own])
        words[row, : len(own)] = tensors["token_positive"][own]
    spread = set_matching._spread(words, torch.float64)
    own = torch.cat([each[:count] for each, count in zip(spread, counts, strict=True)])
    torch.testing.assert_close(own, tensors["positive_map"][:, :-1], rtol=1e-9, atol=0)
    leaves = {key: tensors[key].requires_grad_() for key in ("pred_logits", "pred_boxes", "proj_queries", "proj_tokens")}
    at, terms = run(terms_of_mdetr, compiled, boxes, words, *leaves.values())
    assert torch.equal(at, tensors["out_match"])
    for key, value in terms.items():
        torch.testing.assert_close(value.detach(), tensors[f"out_loss_{key}"], rtol=1e-9, atol=0)
    total = terms["ce"] + 5 * terms["bbox"] + 2 * terms["giou"] + terms["contrastive_align"]
    torch.testing.assert_close(total.detach(), tensors["out_total"], rtol=1e-9, atol=0)
    total.backward()
    for key, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, tensors[f"grad_{key}"], rtol=1e-9, atol=1e-12)
