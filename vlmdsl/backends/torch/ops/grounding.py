"""Regions and the words that name them: features of boxes, alignments, and criteria over both.

Shape letters: R regions of a sample (boxes, or points of a grid), L words of its text, or concepts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmdsl.backends.torch.collectives import all_reduce_sum
from vlmdsl.backends.torch.values import Table, TokenFeatures, WordMap, of_one_precision, precise

__all__ = ["alignment", "focal", "region_contrast", "region_distillation", "regions", "word_bias", "word_map"]

_SMALLEST = 1e-3
"""The least difference between target and probability that the softmax form weighs by: GLIP's."""


def regions(patches: TokenFeatures, boxes: Tensor, *, bins: int = 2, samples: int = 2) -> TokenFeatures:
    """Features of boxes from those of the patches of a square grid: [b, R, D], with the mask of the boxes that have an area.

    Each of `bins` x `bins` parts of a box is read at `samples` x `samples` points, by bilinear interpolation between the
    centres of patches, and a feature is the mean of all of them: RoIAlign (He et al., Mask R-CNN, ICCV 2017), pooled.
    `boxes` [b, R, 4] are shares of the image: left, top, right, bottom. ValueError where the patches are not a square.

    >>> grid = TokenFeatures(torch.arange(4.0).view(1, 4, 1))
    >>> regions(grid, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])).values.item()
    1.5
    """
    values = patches.values
    weights = _region_weights(precise(boxes.detach()), values.shape[1], bins, samples)
    weights, whole = of_one_precision(weights, _whole(patches))
    return TokenFeatures((weights @ whole).to(values.dtype), _real(boxes))


@torch.library.custom_op("vlmdsl::region_weights", mutates_args=())
def _region_weights(boxes: Tensor, patches: int, bins: int, samples: int) -> Tensor:
    """The weight of each patch in the feature of each box: [b, R, P].

    A custom operator, so that a compiled graph does not depend on the number of patches.
    """
    side = _side(patches)
    points = (torch.arange(bins * samples, device=boxes.device, dtype=boxes.dtype) + 0.5) / (bins * samples)
    left, top, right, bottom = boxes.unbind(dim=2)
    across = left[..., None] + (right - left)[..., None] * points
    down = top[..., None] + (bottom - top)[..., None] * points
    # Points are a product of rows and columns, and so is their bilinear interpolation, so the mean is too.
    rows, columns = (_weights(places, side).mean(dim=2) for places in (down, across))
    return (rows[..., :, None] * columns[..., None, :]).flatten(2)


@_region_weights.register_fake
def _(boxes: Tensor, patches: int, bins: int, samples: int) -> Tensor:
    return boxes.new_empty((*boxes.shape[:2], patches))


def _weights(points: Tensor, side: int) -> Tensor:
    """The weight of each of `side` centres in the value at `points` [b, R, n], shares of the axis: [b, R, n, side].

    Beyond the outer centres the value is that of the nearest one.
    """
    centres = torch.arange(side, device=points.device, dtype=points.dtype)
    places = (points * side - 0.5).clamp(0, side - 1)
    return (1 - (places[..., None] - centres).abs()).clamp(min=0)


def _side(patches: int) -> int:
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches are not a square grid")
    return side


def _real(boxes: Tensor) -> Tensor:
    """Which boxes [b, R, 4] have an area: [b, R]."""
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def alignment(x: TokenFeatures, y: TokenFeatures | Table) -> Tensor:
    """The product of each region [b, R, D] with each word of its sample [b, L, D], or entry of a table [L, D]: [b, R, L].

    Padding is zeroed: it must not spread NaN. Of two precisions it is computed in the wider one.
    """
    left, right = of_one_precision(_whole(x), y.values if isinstance(y, Table) else _whole(y))
    return torch.einsum("brd,ld->brl" if isinstance(y, Table) else "brd,bld->brl", left, right)


def word_bias(logits: Tensor, numbers: TokenFeatures) -> Tensor:
    """The number of each word [b, L, 1] added to the logits of all regions [b, R, L]."""
    return logits + precise(_whole(numbers))[:, None, :, 0]


def _whole(tokens: TokenFeatures) -> Tensor:
    return tokens.values if tokens.mask is None else torch.where(tokens.mask[:, :, None], tokens.values, 0.0)


def word_map(words: Tensor, mask: Tensor | None, boxes: Tensor) -> WordMap:
    """The map of words for these boxes: `words` [b, R', L] of the regions in the order of the boxes [b, R, 4].

    A box without a row of words has none; `mask` [b, L] is true where there is a word.
    """
    missing = boxes.shape[1] - words.shape[1]
    padded = F.pad(words, (0, 0, 0, max(missing, 0)))[:, : boxes.shape[1]]
    return WordMap(padded, mask, _real(boxes))


def focal(
    logits: Tensor,
    target: WordMap,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    by: str = "sigmoid",
    reduction: str = "positives",
) -> Tensor:
    """The focal loss of every word of every region, summed over the global batch and divided by its regions with a word, or
    of points by those with a box, named or not (at least 1); with `reduction="sum"` not divided: 0-d.

    By `sigmoid` each word is a separate yes or no, -a_t (1 - p_t)^gamma log p_t with a_t = alpha of positives and 1 - alpha
    of others; a negative alpha weighs none. By `softmax` the target of a region is spread evenly over its words,
    y = 1 / their number, and the loss is -(max(y - p, 0.001) / y)^gamma y log p of each. Words of the padding, and regions
    that are padding, do not count.

    Source: GLIP (Li et al., CVPR 2022), `TokenSigmoidFocalLoss`.
    """
    entries, words = precise(logits), target.words
    counted = _counted(target)
    entries = torch.where(counted, entries, 0.0)
    losses = _binary(entries, words, alpha, gamma) if by == "sigmoid" else _soft(entries, words, counted, gamma)
    total = all_reduce_sum(torch.where(counted, losses, 0.0).sum())
    return total if reduction == "sum" else total / positives(target)


def positives(target: WordMap) -> Tensor:
    """How many regions of the global batch have a word, of points a box, at least 1: 0-d."""
    own = ((target.words & _counted(target)).any(dim=2) if target.boxed is None else target.boxed).sum()
    return all_reduce_sum(own.to(torch.get_default_dtype())).clamp(min=1.0)


def regions_with_words(*targets: WordMap) -> Tensor:
    """How many regions of the global batch have a word, in all maps together: 0-d, float32."""
    own = [(target.words & _counted(target)).any(dim=2).sum() for target in targets]
    return all_reduce_sum(torch.stack(own).sum().float())


def _counted(target: WordMap) -> Tensor:
    """The entries of a map that are neither padding of the words nor of the regions: [b, R, L]."""
    counted = torch.ones_like(target.words)
    if target.tokens is not None:
        counted = counted & target.tokens[:, None, :]
    return counted if target.regions is None else counted & target.regions[:, :, None]


def _binary(logits: Tensor, words: Tensor, alpha: float, gamma: float) -> Tensor:
    signed = torch.where(words, logits, -logits)
    losses = F.softplus(-signed, threshold=40.0)
    if gamma:
        losses = torch.sigmoid(-signed) ** gamma * losses
    return losses if alpha < 0 else torch.where(words, alpha, 1.0 - alpha) * losses


def _soft(logits: Tensor, words: Tensor, counted: Tensor, gamma: float) -> Tensor:
    """The softmax of a row is over the words that count."""
    lowest = torch.finfo(logits.dtype).min
    log_shares = torch.where(counted, logits, lowest).log_softmax(dim=2)
    targets = words / words.sum(dim=2, keepdim=True).clamp(min=1)
    missed = (targets - log_shares.exp()).clamp(min=_SMALLEST) / torch.where(words, targets, 1.0)
    return torch.where(words, -targets * missed**gamma * log_shares, 0.0)


def region_distillation(logits: Tensor, teacher: Tensor, boxes: Tensor, *, above: float) -> Tensor:
    """The mean over kept regions of KL(softmax of the teacher's logits || softmax of the logits), [b, R, K] each: 0-d.

    A region is kept where the teacher gives some entry a probability of more than `above`; where no region of the global
    batch is, all are. The teacher gets no gradient. Source: RegionCLIP (Zhong et al., CVPR 2022).
    """
    kept, targets = _kept(teacher, boxes, above)
    shares = precise(logits).log_softmax(dim=2)
    divergence = (torch.special.xlogy(targets, targets) - targets * shares).sum(dim=2)
    return _mean(divergence, kept)


def region_contrast(logits: Tensor, teacher: Tensor, boxes: Tensor, *, above: float) -> Tensor:
    """The mean over kept regions i of the global batch of -log(n_c e^{z_ic} / sum_k n_k e^{z_ik}): 0-d.

    c is the entry that the teacher gives the largest probability, and n_k how many kept regions have entry k: every kept
    region's entry is a candidate of every other, and those of the same entry are positives together. Kept regions are those
    of `region_distillation`. Source: RegionCLIP (Zhong et al., CVPR 2022), `MILCrossEntropy`.
    """
    kept, targets = _kept(teacher, boxes, above)
    entries, best = precise(logits), targets.argmax(dim=2, keepdim=True)
    chosen = torch.zeros_like(targets).scatter(2, best, 1.0) * kept[:, :, None]
    counts = all_reduce_sum(chosen.sum(dim=(0, 1)))
    lowest = torch.finfo(entries.dtype).min / 2
    weighted = torch.where(counts > 0, entries + counts.clamp(min=1.0).log(), lowest)
    losses = weighted.logsumexp(dim=2) - weighted.gather(2, best).squeeze(2)
    return _mean(losses, kept)


def _kept(teacher: Tensor, boxes: Tensor, above: float) -> tuple[Tensor, Tensor]:
    """The regions that count [b, R], and the teacher's probabilities [b, R, K]."""
    targets, real = precise(teacher.detach()).softmax(dim=2), _real(boxes)
    sure = real & (targets.amax(dim=2) > above)
    some = all_reduce_sum(sure.sum().to(targets.dtype)) > 0
    return torch.where(some, sure, real), targets


def _mean(values: Tensor, over: Tensor) -> Tensor:
    total = all_reduce_sum(torch.where(over, values, 0.0).sum())
    return total / all_reduce_sum(over.sum().to(values.dtype)).clamp(min=1.0)
