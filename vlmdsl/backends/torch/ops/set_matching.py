"""Predictions and boxes matched one to one, and criteria over matched predictions (MDETR, Grounding DINO)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmdsl.backends.torch.collectives import all_reduce_sum
from vlmdsl.backends.torch.ops.detection import generalised_iou
from vlmdsl.backends.torch.values import TokenFeatures, WordMap, precise

__all__ = [
    "absolute_error", "box_count", "box_error", "focal_affinity", "hungarian", "match_boxes", "matched_giou", "matched_iou",
    "soft_token_loss", "soft_tokens", "token_affinity", "token_contrast", "token_contrast_loss",
]  # fmt: skip


def corners(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] of centre and size as left, top, right and bottom."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)


def centred(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] of left, top, right and bottom as centre and size."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def token_affinity(logits: Tensor, words: Tensor) -> Tensor:
    """The probability that a prediction, logits [b, Q, T + 1], gives the words of each box [b, R, T], a mean: [b, Q, R]."""
    chances = precise(logits).softmax(dim=2)[..., :-1]
    return torch.einsum("bqt,brt->bqr", chances, _spread(words, chances.dtype))


def _spread(words: Tensor, dtype: torch.dtype) -> Tensor:
    """1 over the number of words of a box for each of them, a little less, as in MDETR: [b, R, T]."""
    return words.to(dtype) / (words.sum(dim=2, keepdim=True).to(dtype) + 1e-6)


def hungarian(
    affinity: Tensor, predicted: Tensor, boxes: Tensor, *, affinity_weight: float, l1_weight: float, giou_weight: float
) -> Tensor:
    """The box that each prediction is matched with, at the least total cost, one to one: [b, Q], int64, -1 for none.

    `affinity` [b, Q, R] is how well a prediction fits the words of a box; `predicted` [b, Q, 4] are centre and size,
    `boxes` [b, R, 4] left, top, right and bottom, all as shares of the image. The cost of a pair is minus the weighted
    affinity, plus the weighted absolute error of the four numbers, minus the weighted GIoU. Padded boxes are matched with
    nothing. Source: DETR (Carion et al., ECCV 2020); scipy's `linear_sum_assignment` finds the matching.
    """
    weights = (affinity_weight, l1_weight, giou_weight)
    at: Tensor = _hungarian(precise(affinity.detach()), precise(predicted.detach()), precise(boxes.detach()), *weights)
    return at


@torch.library.custom_op("vlmdsl::hungarian", mutates_args=())
def _hungarian(
    affinity: Tensor, predicted: Tensor, boxes: Tensor, affinity_weight: float, l1_weight: float, giou_weight: float
) -> Tensor:
    """A custom operator: a compiled graph holds one node for what runs on the CPU."""
    from scipy.optimize import linear_sum_assignment

    distance = (predicted[:, :, None] - centred(boxes)[:, None]).abs().sum(dim=-1)
    overlap = generalised_iou(corners(predicted)[:, :, None], boxes[:, None], added=0.0)
    cost = l1_weight * distance - affinity_weight * affinity - giou_weight * overlap
    costs = torch.nan_to_num(cost, nan=0.0, posinf=1e9, neginf=-1e9).cpu().numpy()
    real = ((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])).cpu().numpy()
    at = torch.full(cost.shape[:2], -1, dtype=torch.int64)
    for sample in range(len(at)):
        (own,) = real[sample].nonzero()
        rows, columns = linear_sum_assignment(costs[sample][:, own])
        at[sample, torch.from_numpy(rows)] = torch.from_numpy(own[columns])
    return at.to(cost.device)


@_hungarian.register_fake
def _(
    affinity: Tensor, predicted: Tensor, boxes: Tensor, affinity_weight: float, l1_weight: float, giou_weight: float
) -> Tensor:
    return affinity.new_empty(affinity.shape[:2], dtype=torch.int64)


def box_count(boxes: Tensor) -> Tensor:
    """The boxes of the global batch, at least 1: 0-d."""
    real = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    return all_reduce_sum(real.sum().to(precise(boxes).dtype)).clamp(min=1.0)


def soft_tokens(logits: Tensor, words: Tensor, at: Tensor, count: Tensor, *, without: float = 0.1) -> Tensor:
    """The cross-entropy of each prediction's softmax over T tokens and no object, [b, Q, T + 1], over the `count`: 0-d.

    The target of a matched prediction spreads evenly over the words of its box, `words` [b, R, T], bool; that of any other
    prediction is the last column, and counts `without`. Source: MDETR (Kamath et al., ICCV 2021), `loss_labels`.
    """
    log_shares = precise(logits).log_softmax(dim=2)
    own = _spread(words, log_shares.dtype).gather(1, at.clamp(min=0)[:, :, None].expand(-1, -1, words.shape[2]))
    matched = at >= 0
    missing = -(own * log_shares[..., :-1]).sum(dim=2)
    losses = torch.where(matched, missing, -without * log_shares[..., -1])
    return all_reduce_sum(losses.sum()) / count


def token_contrast(logits: Tensor, target: WordMap, count: Tensor) -> Tensor:
    """Half the sum, over predictions with words and over words of predictions, of log-sum-exp minus the mean of the
    positives, divided by the `count`: 0-d.

    `logits` [b, Q, T]; a row without a positive has no loss, and padded words are in no sum. Source: MDETR,
    `loss_contrastive_align`.
    """
    values, positive = precise(logits), target.words
    counted = torch.ones_like(positive) if target.tokens is None else target.tokens[:, None, :].expand_as(positive)
    lowest = torch.finfo(values.dtype).min / 2
    positive = positive & counted
    open_values = torch.where(counted, values, lowest)
    total = values.new_zeros(())
    for dim in (2, 1):
        number = positive.sum(dim=dim).to(values.dtype)
        mean = torch.where(positive, values, 0.0).sum(dim=dim) / (number + 1e-6)
        losses = open_values.logsumexp(dim=dim) - mean
        total = total + torch.where(number > 0, losses, 0.0).sum() / 2
    return all_reduce_sum(total) / count


def absolute_error(predicted: Tensor, boxes: Tensor, at: Tensor, count: Tensor) -> Tensor:
    """The absolute errors of centre and size of matched predictions [b, Q, 4], summed and divided by the `count`: 0-d."""
    errors = (precise(predicted) - centred(_matched(boxes, at))).abs().sum(dim=-1)
    return all_reduce_sum(torch.where(at >= 0, errors, 0.0).sum()) / count


def matched_giou(predicted: Tensor, boxes: Tensor, at: Tensor, count: Tensor) -> Tensor:
    """1 - GIoU of matched predictions [b, Q, 4] of centre and size, summed and divided by the `count`: 0-d."""
    losses = 1 - generalised_iou(corners(precise(predicted)), _matched(boxes, at), added=0.0)
    return all_reduce_sum(torch.where(at >= 0, losses, 0.0).sum()) / count


def _matched(boxes: Tensor, at: Tensor) -> Tensor:
    return precise(boxes).gather(1, at.clamp(min=0)[..., None].expand(-1, -1, 4))


def focal_affinity(logits: Tensor, words: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """How much less the focal loss of the words of a box is if a prediction is matched with it, a mean: [b, Q, R].

    `logits` [b, Q, T], `words` [b, R, T]. Source: the matcher of Open-GroundingDino.
    """
    values = precise(logits)
    positive = alpha * torch.sigmoid(-values) ** gamma * F.softplus(-values)
    negative = (1 - alpha) * torch.sigmoid(values) ** gamma * F.softplus(values)
    return torch.einsum("bqt,brt->bqr", negative - positive, _spread(words, values.dtype))


def match_boxes(
    scores: TokenFeatures | Tensor,
    predicted: TokenFeatures,
    words: WordMap,
    boxes: Tensor,
    *,
    affinity: float,
    l1: float,
    giou: float,
) -> Tensor:
    """The box that each patch [b, P] is matched with, -1 for none; see `hungarian`.

    Scores are logits over tokens and no object, [b, P, T + 1] of patches, or logits of patches against words, [b, P, L].
    """
    if isinstance(scores, TokenFeatures):
        fits = token_affinity(scores.values, _to_positions(words.words, scores.values.shape[2] - 1))
    else:
        named = words.words if words.tokens is None else words.words & words.tokens[:, None, :]
        fits = focal_affinity(scores, named)
    places = precise(predicted.values).sigmoid()
    return hungarian(fits, places, boxes, affinity_weight=affinity, l1_weight=l1, giou_weight=giou)


def soft_token_loss(
    logits: TokenFeatures, words: WordMap, boxes: Tensor, assigned: Tensor, *, without: float = 0.1
) -> Tensor:
    """`soft_tokens` of patches; words beyond the positions that they have logits for are cut off."""
    named = _to_positions(words.words, logits.values.shape[2] - 1)
    return soft_tokens(logits.values, named, assigned, box_count(boxes), without=without)


def token_contrast_loss(logits: Tensor, target: WordMap, boxes: Tensor) -> Tensor:
    """`token_contrast` of patches, with the words of the box that each is matched with."""
    return token_contrast(logits, target, box_count(boxes))


def box_error(predicted: TokenFeatures, boxes: Tensor, assigned: Tensor) -> Tensor:
    """`absolute_error` of the boxes that patches predict, the sigmoid of centre and size."""
    places = precise(predicted.values).sigmoid()
    return absolute_error(places, boxes.detach(), assigned, box_count(boxes))


def matched_iou(predicted: TokenFeatures, boxes: Tensor, assigned: Tensor) -> Tensor:
    """`matched_giou` of the boxes that patches predict, the sigmoid of centre and size."""
    places = precise(predicted.values).sigmoid()
    return matched_giou(places, boxes.detach(), assigned, box_count(boxes))


def _to_positions(words: Tensor, positions: int) -> Tensor:
    """Maps of L words as those of so many positions."""
    return F.pad(words, (0, max(positions - words.shape[2], 0)))[..., :positions]
