"""Boxes predicted at the points of a patch grid: which box each point is for, and losses of predicted boxes.

One square anchor is centred at every point, `scale` times as wide as a patch. All boxes are left, top, right, bottom: shares
of the image, or pixels with `pixel=1`, where a box includes its last pixel, as in maskrcnn_benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmdsl.backends.torch.collectives import all_reduce_sum
from vlmdsl.backends.torch.values import TokenFeatures, WordMap, precise

__all__ = [
    "around_patches", "assigned_words", "atss", "atss_of", "box_loss_of", "centreness", "centreness_of", "decoded_boxes",
    "generalised_iou", "giou", "pairwise_overlap",
]  # fmt: skip

_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""What offsets and logarithms of sizes are multiplied by: those of Faster R-CNN's coder."""
_MOST = math.log(1000 / 16)
"""The logarithm of the most that a predicted box is larger than its anchor."""
_ADDED = 1e-7
"""What GLIP adds to areas before it divides by them."""


def anchors(points: int, scale: float, like: Tensor) -> Tensor:
    """The anchors of a square grid of so many points: [points, 4], in shares of the image."""
    side = math.isqrt(points)
    if side * side != points:
        raise ValueError(f"{points} points are not a square grid")
    centres = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    down, across = torch.meshgrid(centres, centres, indexing="ij")
    half = scale / side / 2
    return torch.stack([across - half, down - half, across + half, down + half], dim=-1).flatten(0, 1)


def atss(points: TokenFeatures, boxes: Tensor, *, topk: int, scale: float) -> Tensor:
    """Which of the boxes [b, R, 4] each point of a grid is for: [b, P], int64, -1 for none; see `atss_of`."""
    assigned: Tensor = _atss_on_grid(boxes.detach(), points.values.shape[1], topk, scale)
    return assigned


@torch.library.custom_op("vlmdsl::atss_on_grid", mutates_args=())
def _atss_on_grid(boxes: Tensor, points: int, topk: int, scale: float) -> Tensor:
    """A custom operator, so that a compiled graph does not depend on the number of points."""
    precise_boxes = precise(boxes)
    return atss_of(anchors(points, scale, precise_boxes), [points], precise_boxes, topk=topk)


@_atss_on_grid.register_fake
def _(boxes: Tensor, points: int, topk: int, scale: float) -> Tensor:
    return boxes.new_empty((boxes.shape[0], points), dtype=torch.int64)


def atss_of(
    anchors: Tensor, sizes: Sequence[int], boxes: Tensor, *, topk: int = 9, pixel: float = 0.0, inside: float = 0.0
) -> Tensor:
    """The box [b, R, 4] that each anchor [A, 4] is for: [b, A], int64, -1 for none.

    Of each level (`sizes` anchors each, in a row) the `topk` anchors whose centres are nearest to that of a box are
    candidates. A candidate is positive if its overlap is at least the mean plus the standard deviation of those of all
    candidates of the box, and its centre is more than `inside` from the edges of the box. An anchor of several boxes is for
    the one with the largest overlap. Source: ATSS (Zhang et al., CVPR 2020), as GLIP assigns.
    """
    real = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    overlaps = _overlap(anchors[None, :, None], boxes[:, None], pixel)
    centres, of_boxes = _centre(anchors), _centre(boxes)
    distances = (centres[None, :, None] - of_boxes[:, None]).square().sum(dim=-1).sqrt()
    candidates = torch.zeros_like(overlaps, dtype=torch.bool)
    start = 0
    for size in sizes:
        nearest = distances[:, start : start + size].topk(min(topk, size), dim=1, largest=False).indices + start
        candidates.scatter_(1, nearest, True)
        start += size
    count = candidates.sum(dim=1, keepdim=True)
    mean = torch.where(candidates, overlaps, 0.0).sum(dim=1, keepdim=True) / count
    variance = torch.where(candidates, (overlaps - mean).square(), 0.0).sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    margins = torch.cat([centres[None, :, None] - boxes[:, None, :, :2], boxes[:, None, :, 2:] - centres[None, :, None]], -1)
    positive = candidates & (overlaps >= mean + variance.sqrt()) & (margins.amin(dim=-1) > inside) & real[:, None]
    best = torch.where(positive, overlaps, -1.0).max(dim=2)
    return torch.where(best.values >= 0, best.indices, -1)


def _centre(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _overlap(x: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Intersection over union of boxes whose axes broadcast."""

    def area(sizes: Tensor) -> Tensor:
        return (sizes + pixel).clamp(min=0).prod(dim=-1)

    shared = area(torch.minimum(x[..., 2:], y[..., 2:]) - torch.maximum(x[..., :2], y[..., :2]))
    return shared / (area(x[..., 2:] - x[..., :2]) + area(y[..., 2:] - y[..., :2]) - shared).clamp(min=1e-12)


def pairwise_overlap(x: Tensor, y: Tensor) -> Tensor:
    """Intersection over union of each of the boxes `x` [..., n, 4] with each of `y` [..., m, 4]: [..., n, m]."""
    return _overlap(x[..., :, None, :], y[..., None, :, :], 0.0)


def assigned_words(target: WordMap, assigned: Tensor) -> WordMap:
    """The words of the box that each point [b, P] is for, none for a point without one: all points count."""
    rows = assigned.clamp(min=0)[:, :, None].expand(-1, -1, target.words.shape[2])
    boxed = assigned >= 0
    return WordMap(target.words.gather(1, rows) & boxed[:, :, None], target.tokens, boxed=boxed)


def giou(deltas: TokenFeatures, boxes: Tensor, assigned: Tensor, *, scale: float) -> Tensor:
    """The loss of the boxes that points [b, P, 4] predict relative to their anchors; see `box_loss_of`: 0-d."""
    numbers = precise(deltas.values)
    return box_loss_of(numbers, _anchors_of(numbers, scale), precise(boxes.detach()), assigned)


def centreness(logits: TokenFeatures, boxes: Tensor, assigned: Tensor, *, scale: float) -> Tensor:
    """The loss of the centreness that points [b, P, 1] predict; see `centreness_of`: 0-d."""
    numbers = precise(logits.values)
    return centreness_of(numbers[..., 0], _anchors_of(numbers, scale), precise(boxes.detach()), assigned)


def _anchors_of(points: Tensor, scale: float) -> Tensor:
    grid: Tensor = _anchors_on_grid(points.detach(), points.shape[1], scale)
    return grid


@torch.library.custom_op("vlmdsl::anchors_on_grid", mutates_args=())
def _anchors_on_grid(like: Tensor, points: int, scale: float) -> Tensor:
    """A custom operator, as for `atss`."""
    return anchors(points, scale, like)


@_anchors_on_grid.register_fake
def _(like: Tensor, points: int, scale: float) -> Tensor:
    return like.new_empty((points, 4))


def around_patches(numbers: TokenFeatures, *, size: float) -> TokenFeatures:
    """Numbers of patches [b, P, 4] plus the logits of centre and size of a box around each patch, `size` of the image wide:
    what a patch predicts is near it, whatever the weights. Sources: Deformable DETR (Zhu et al., ICLR 2021) and DINO, where
    the proposals of the encoder begin so.

    >>> around_patches(TokenFeatures(torch.zeros(1, 4, 4)), size=0.5).values.sigmoid()[0, 1]
    tensor([0.7500, 0.2500, 0.5000, 0.5000])
    """
    values = precise(numbers.values)
    logits: Tensor = _logits_on_grid(values.detach(), values.shape[1], size)
    return numbers._replace(values=values + logits)


@torch.library.custom_op("vlmdsl::logits_on_grid", mutates_args=())
def _logits_on_grid(like: Tensor, points: int, size: float) -> Tensor:
    """A custom operator, as for `atss`."""
    boxes = anchors(points, size * math.isqrt(points), like)
    return torch.cat([_centre(boxes), boxes[:, 2:] - boxes[:, :2]], dim=1).logit()


@_logits_on_grid.register_fake
def _(like: Tensor, points: int, size: float) -> Tensor:
    return like.new_empty((points, 4))


def box_loss_of(deltas: Tensor, anchors: Tensor, boxes: Tensor, assigned: Tensor, *, pixel: float = 0.0) -> Tensor:
    """The mean of 1 - GIoU of predicted and assigned boxes, weighted by the centreness of each point, over the positives of
    the global batch; none: 0. 0-d.

    `deltas` [b, A, 4] are offsets of centres, as shares of the anchor, and logarithms of sizes. Sources: GIoU (Rezatofighi
    et al., CVPR 2019); GLIP, `ATSSLossComputation`.
    """
    positive, targets = assigned >= 0, _assigned(boxes, assigned)
    shares = torch.where(positive, _centreness(anchors, targets), 0.0)
    predicted = _decoded(torch.where(positive[..., None], deltas, 0.0), anchors, pixel)
    losses = 1 - generalised_iou(predicted, targets)
    total, weight = all_reduce_sum((shares * losses).sum()), all_reduce_sum(shares.sum())
    return total / torch.where(weight > 0, weight, 1.0)


def centreness_of(logits: Tensor, anchors: Tensor, boxes: Tensor, assigned: Tensor) -> Tensor:
    """The binary cross-entropy of logits [b, A] with the centreness of each positive point, divided by the positives of the
    global batch, at least 1: 0-d.

    The centreness of a point is sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) for its distances from the edges of its
    box. Source: FCOS (Tian et al., ICCV 2019).
    """
    positive = assigned >= 0
    targets = torch.where(positive, _centreness(anchors, _assigned(boxes, assigned)), 0.0)
    losses = F.binary_cross_entropy_with_logits(torch.where(positive, logits, 0.0), targets, reduction="none")
    total = all_reduce_sum(torch.where(positive, losses, 0.0).sum())
    return total / all_reduce_sum(positive.sum().to(losses.dtype)).clamp(min=1.0)


def _assigned(boxes: Tensor, assigned: Tensor) -> Tensor:
    """The box of each point [b, A, 4]; the first one of a point that has none."""
    return boxes.gather(1, assigned.clamp(min=0)[..., None].expand(-1, -1, 4))


def decoded_boxes(deltas: Tensor, scale: float) -> Tensor:
    """The boxes that points of a grid predict by `deltas` [b, P, 4] from their anchors: left, top, right, bottom."""
    return _decoded(deltas, anchors(deltas.shape[1], scale, deltas), 0.0)


def _decoded(deltas: Tensor, anchors: Tensor, pixel: float) -> Tensor:
    """The boxes that `deltas` [b, A, 4] say relative to anchors [A, 4]."""
    scaled = deltas / deltas.new_tensor(_WEIGHTS)
    sizes = anchors[:, 2:] - anchors[:, :2] + pixel
    centres = _centre(anchors) + scaled[..., :2] * sizes
    half = (scaled[..., 2:].clamp(max=_MOST).exp() * sizes - pixel) / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def _centreness(anchors: Tensor, boxes: Tensor) -> Tensor:
    centres = _centre(anchors)
    first, last = (centres - boxes[..., :2]).clamp(min=0), (boxes[..., 2:] - centres).clamp(min=0)
    ratios = torch.minimum(first, last) / torch.maximum(first, last).clamp(min=1e-12)
    return ratios.prod(dim=-1).sqrt()


def generalised_iou(x: Tensor, y: Tensor, *, added: float = _ADDED) -> Tensor:
    """The generalised intersection over union of boxes [..., 4] pair by pair: [...], from -1 to 1.

    `added` is added to the areas that are divided by, which are positive in any case. A predicted box whose right or lower
    edge is before the other counts as empty.

    >>> boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]])
    >>> round(generalised_iou(boxes[0], boxes[1]).item(), 3)
    -0.333
    """
    x = torch.cat([x[..., :2], torch.maximum(x[..., :2], x[..., 2:])], dim=-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (x, y)]
    low, high = torch.maximum(x[..., :2], y[..., :2]), torch.minimum(x[..., 2:], y[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    around = torch.maximum(x[..., 2:], y[..., 2:]) - torch.minimum(x[..., :2], y[..., :2])
    whole, union = (area.clamp(min=1e-12) + added for area in (around.prod(dim=-1), areas[0] + areas[1] - shared))
    return shared / union - (whole - union) / whole
