"""Features of boxes, and criteria over regions and words, where no oracle reaches."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from vlmdsl.backends.torch import ops


def test_a_box_is_read_as_by_bilinear_interpolation_of_its_points() -> None:
    torch.manual_seed(0)
    patches, boxes = torch.randn(2, 16, 5, dtype=torch.float64), torch.rand(2, 3, 4, dtype=torch.float64)
    boxes = torch.cat([boxes[..., :2] / 2, 0.5 + boxes[..., 2:] / 2], dim=2)
    pooled = ops.regions(ops.tokens(patches, None), boxes, bins=2, samples=3).values
    share = (torch.arange(6, dtype=torch.float64) + 0.5) / 6
    across = boxes[..., :1] + (boxes[..., 2:3] - boxes[..., :1]) * share
    down = boxes[..., 1:2] + (boxes[..., 3:] - boxes[..., 1:2]) * share
    points = torch.stack(torch.broadcast_tensors(across[:, :, None, :], down[:, :, :, None]), dim=-1) * 2 - 1
    grid = patches.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    read = F.grid_sample(grid, points.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False)
    expected = read.unflatten(2, (3, 6)).mean(dim=(3, 4)).transpose(1, 2)
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)


def test_boxes_without_an_area_are_padding() -> None:
    regions = ops.regions(ops.tokens(torch.ones(1, 4, 2), None), torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0] * 4]]))
    assert regions.mask is not None
    assert regions.mask.tolist() == [[True, False]]


def test_padding_changes_neither_a_focal_loss_nor_its_gradient() -> None:
    torch.manual_seed(1)
    logits, words = torch.randn(2, 3, 4), torch.rand(2, 3, 4) > 0.6
    tokens, regions = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    tokens[0, 2:], regions[1, 2] = False, False
    counted = tokens[:, None, :] & regions[:, :, None]
    plain = torch.where(counted, logits, torch.nan).requires_grad_()
    for by in ("sigmoid", "softmax"):
        target = ops.WordMap(words, tokens, regions)
        loss = ops.focal(plain, target, by=by)
        (gradient,) = torch.autograd.grad(loss, plain)
        assert torch.isfinite(loss)
        assert bool((gradient[~counted] == 0).all())
        assert bool(torch.isfinite(gradient).all())


def test_batches_without_a_positive_divides_by_one() -> None:
    logits, target = torch.zeros(1, 2, 3), ops.WordMap(torch.zeros(1, 2, 3, dtype=torch.bool))
    expected = 6 * 0.75 * 0.25 * torch.log(torch.tensor(2.0))
    torch.testing.assert_close(ops.focal(logits, target), expected)


def test_word_maps_have_a_row_for_each_box() -> None:
    words, boxes = torch.ones(1, 2, 3, dtype=torch.bool), torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 3])
    longer = ops.word_map(words, None, boxes)
    assert longer.words.any(dim=2).tolist() == [[True, True, False]]
    assert ops.word_map(words, None, boxes[:, :1]).words.shape == (1, 1, 3)


def test_all_regions_count_if_none_is_sure_and_without_any_the_loss_is_zero() -> None:
    torch.manual_seed(2)
    logits, boxes = torch.randn(1, 3, 4, requires_grad=True), torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 3])
    taught = torch.zeros(1, 3, 4)
    every = ops.region_distillation(logits, taught, boxes, above=0.9)
    expected = (-logits.log_softmax(dim=2) / 4).sum(dim=2).mean() - torch.log(torch.tensor(4.0))
    torch.testing.assert_close(every, expected)
    empty = ops.region_contrast(logits, taught, torch.zeros_like(boxes), above=0.0)
    (gradient,) = torch.autograd.grad(empty, logits)
    assert empty == 0
    assert not gradient.any()
