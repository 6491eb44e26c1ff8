"""The recipes of detectors as a whole, where the authors' numbers do not reach: images without boxes, boxes without names.

References are the formulas in plain float64, one image and one box at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.testing import example_features, example_modules

SCALE, SIDE, TOKENS = 2.0, 5, 16
"""Anchors are two patches wide on a grid of 5 x 5, so that boxes have some overlap with them; texts have 16 tokens."""
Terms = dict[str, Tensor]


def batch_of(objective: Objective) -> dict[str, Tensor]:
    """Three images: one without boxes, one none of whose boxes is named, one with both kinds."""
    features = example_features(objective, batch=3, tokens=TOKENS)
    features["boxes"][0] = 0.0
    for name, value in features.items():
        if name.startswith("image") and name.endswith("_mask"):
            value[:] = True
        if name.endswith("_words"):
            value[1], value[2, ::2] = False, False
    return features


def check(objective: Objective, reference: Callable[..., Terms]) -> None:
    """Every term, and the gradient of their sum for every input and module, are the reference's."""
    modules, features = example_modules(objective), batch_of(objective)
    with torch.no_grad():
        for place, parameter in enumerate(objective.parameters()):
            parameter.sub_(0.2 * (place + 1))
    learning = [value.requires_grad_() for name, value in features.items() if value.is_floating_point() and name != "boxes"]
    learning += [weight for module in modules.values() for weight in module.parameters()]
    learning += list(objective.parameters())
    terms = dict(objective(modules=modules, **features).terms)
    expected = reference(objective, modules, features)
    torch.testing.assert_close(terms, expected, rtol=1e-10, atol=1e-13)
    sums = (sum(each.values()) for each in (terms, expected))
    both = (torch.autograd.grad(loss, learning, allow_unused=True) for loss in sums)
    for leaf, *gradients in zip(learning, *both, strict=True):
        own, theirs = (torch.zeros_like(leaf) if gradient is None else gradient for gradient in gradients)
        torch.testing.assert_close(own, theirs, rtol=1e-8, atol=1e-12)


def real(boxes: Tensor) -> list[int]:
    """Which boxes [R, 4] of an image have an area."""
    return [place for place, (left, top, right, bottom) in enumerate(boxes.tolist()) if right > left and bottom > top]


def anchors() -> Tensor:
    centres = [((column + 0.5) / SIDE, (row + 0.5) / SIDE) for row in range(SIDE) for column in range(SIDE)]
    half = SCALE / SIDE / 2
    return torch.tensor([[x - half, y - half, x + half, y + half] for x, y in centres], dtype=torch.float64)


def areas_of(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and the area of the box around both boxes [4]."""
    sides = torch.minimum(first[2:], second[2:]) - torch.maximum(first[:2], second[:2])
    shared = sides.clamp(min=0).prod()
    whole = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared
    return shared, whole, (torch.maximum(first[2:], second[2:]) - torch.minimum(first[:2], second[:2])).prod()


def generalised_iou(first: Tensor, second: Tensor, added: float) -> Tensor:
    shared, whole, around = areas_of(first, second)
    return shared / (whole + added) - (around - whole) / (around + added)


def atss(boxes: Tensor) -> dict[int, int]:
    """The box of each anchor that has one: of its nine nearest with more overlap than most, those whose centre is inside."""
    best: dict[int, tuple[float, int]] = {}
    for box in real(boxes):
        own = boxes[box]
        centres = (anchors()[:, :2] + anchors()[:, 2:]) / 2
        nearest = (centres - (own[:2] + own[2:]) / 2).norm(dim=1).argsort()[:9].tolist()
        overlaps = torch.stack([(pair := areas_of(anchors()[place], own))[0] / pair[1] for place in nearest])
        for place, overlap in zip(nearest, overlaps, strict=True):
            inside = bool((centres[place] > own[:2]).all() and (centres[place] < own[2:]).all())
            if inside and overlap >= overlaps.mean() + overlaps.std() and overlap > best.get(place, (-1.0, 0))[0]:
                best[place] = (float(overlap), box)
    return {place: box for place, (_, box) in best.items()}


def centreness(place: int, box: Tensor) -> Tensor:
    centre = (anchors()[place, :2] + anchors()[place, 2:]) / 2
    first, last = centre - box[:2], box[2:] - centre
    return (torch.minimum(first, last) / torch.maximum(first, last)).prod().sqrt()


def focal(logit: Tensor, positive: bool) -> Tensor:
    signed = logit if positive else -logit
    return -(0.25 if positive else 0.75) * (-signed).sigmoid() ** 2 * F.logsigmoid(signed)


def atss_terms(features: dict[str, Tensor], logits: Tensor, words: Tensor, mask: Tensor, heads: dict[str, Tensor]) -> Terms:
    """Focal loss over positives, twice GIoU weighted by centreness, and centreness over positives; none count as one."""
    at = [atss(boxes) for boxes in features["boxes"]]
    positives = max(sum(map(len, at)), 1)
    assert positives > 4
    assert not at[0], "an image without boxes"
    named = [
        focal(logits[image, place, word], place in own and bool(words[image, own[place], word]))
        for image, own in enumerate(at)
        for place in range(SIDE**2)
        for word in mask[image].nonzero().flatten().tolist()
    ]
    pairs = [(image, place, features["boxes"][image, box]) for image, own in enumerate(at) for place, box in own.items()]
    weights = torch.stack([centreness(place, box) for _, place, box in pairs])
    losses = []
    for image, place, box in pairs:
        deltas, anchor = heads["boxes"][image, place], anchors()[place]
        size = anchor[2:] - anchor[:2]
        centre = (anchor[2:] + anchor[:2]) / 2 + deltas[:2] / 10 * size
        half = (deltas[2:] / 5).exp() * size / 2
        losses.append(1 - generalised_iou(torch.cat([centre - half, centre + half]), box, 1e-7))
    certain = torch.stack([heads["centreness"][image, place, 0] for image, place, _ in pairs])
    return {
        "words": torch.stack(named).sum() / positives,
        "boxes": 2 * (weights * torch.stack(losses)).sum() / weights.sum(),
        "centreness": F.binary_cross_entropy_with_logits(certain, weights, reduction="sum") / positives,
    }


def linear(modules: dict[str, Any], name: str, tokens: Tensor) -> Tensor:
    return F.linear(tokens, modules[name].linear.weight, modules[name].linear.bias)


def glip_logits(objective: Objective, modules: dict[str, Any], regions: Tensor, words: Tensor) -> Tensor:
    log_scale, prior = objective.parameters()
    products = torch.einsum("bpd,bld->bpl", regions, linear(modules, "word_projection", words)) * log_scale.exp()
    return products + linear(modules, "word_bias", words).transpose(1, 2) + prior


def heads_of(modules: dict[str, Any], points: Tensor) -> dict[str, Tensor]:
    return {name: linear(modules, name, points) for name in ("boxes", "centreness")}


def test_glip_without_boxes_and_without_names() -> None:
    def reference(objective: Objective, modules: dict[str, Any], features: dict[str, Tensor]) -> Terms:
        points, words = features["image_tokens"], F.normalize(features["phrases_prompt_tokens"], dim=2)
        logits, heads = glip_logits(objective, modules, points, words), heads_of(modules, points)
        return atss_terms(features, logits, features["phrases_prompt_words"], features["phrases_prompt_mask"], heads)

    check(vlmdsl.compile("glip", compiled=False, scale=SCALE).double(), reference)


def test_the_fine_stage_of_fiber() -> None:
    """The same of words that have attended to the image."""

    def reference(objective: Objective, modules: dict[str, Any], features: dict[str, Tensor]) -> Terms:
        points, mask = features["image_tokens"], features["phrases_prompt_mask"]
        fused = modules["fusion"](features["phrases_prompt_states"], mask, features["image_states"], features["image_mask"])
        words, regions = F.normalize(fused.tokens, dim=2), linear(modules, "regions", points)
        logits = glip_logits(objective, modules, regions, words)
        terms = atss_terms(features, logits, features["phrases_prompt_words"], mask, heads_of(modules, points))
        return {"words": terms["words"], "giou": terms["boxes"], "centreness": terms["centreness"]}

    check(vlmdsl.compile("fiber", stage="fine", compiled=False, scale=SCALE).double(), reference)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_detclip_without_boxes_and_without_names(compiled: bool) -> None:
    def reference(objective: Objective, modules: dict[str, Any], features: dict[str, Tensor]) -> Terms:
        log_scale, prior = objective.parameters()
        points, mask = features["image_tokens"], features["phrases_concepts_mask"]
        products = torch.einsum("bpd,bnd->bpn", points, features["phrases_concepts_tokens"]) * log_scale.exp()
        words = features["phrases_concepts_words"]
        terms = atss_terms(features, products + prior, words, mask, heads_of(modules, points))
        return {"alignment": terms["words"], "centreness": terms["centreness"], "boxes": terms["boxes"]}

    check(vlmdsl.compile("detclip", compiled=compiled, scale=SCALE).double(), reference)


def predicted_places(modules: dict[str, Any], points: Tensor, size: float = 0.05) -> Tensor:
    """Centre and size of the box that each patch predicts, beside the one around it."""
    centres = [((column + 0.5) / SIDE, (row + 0.5) / SIDE, size, size) for row in range(SIDE) for column in range(SIDE)]
    return (linear(modules, "boxes", points) + torch.tensor(centres, dtype=torch.float64).logit()).sigmoid()


def corners(place: Tensor) -> Tensor:
    return torch.cat([place[:2] - place[2:] / 2, place[:2] + place[2:] / 2])


def centred(box: Tensor) -> Tensor:
    return torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def matched(cost: Callable[[int, int, int], Tensor], places: Tensor, boxes: Tensor) -> list[dict[int, int]]:
    """The box of each patch that is matched with one, for each image; `cost` is that of classes, of image, patch and box."""
    at: list[dict[int, int]] = []
    for image, own in enumerate(boxes):
        rows = [
            [
                cost(image, patch, box).detach()
                + 5 * (places[image, patch].detach() - centred(own[box])).abs().sum()
                - 2 * generalised_iou(corners(places[image, patch].detach()), own[box], 0.0)
                for box in real(own)
            ]
            for patch in range(SIDE**2)
        ]
        pairs = linear_sum_assignment(torch.tensor(rows)) if real(own) else ((), ())
        at.append({int(patch): real(own)[box] for patch, box in zip(*pairs, strict=True)})
    assert not at[0], "an image without boxes"
    assert len(at[1]) > 1
    return at


def box_terms(places: Tensor, boxes: Tensor, at: list[dict[int, int]], count: int) -> Terms:
    pairs = [(places[image, patch], boxes[image, box]) for image, own in enumerate(at) for patch, box in own.items()]
    error = torch.stack([(place - centred(box)).abs().sum() for place, box in pairs]).sum()
    overlap = torch.stack([1 - generalised_iou(corners(place), box, 0.0) for place, box in pairs]).sum()
    return {"error": 5 * error / count, "giou": 2 * overlap / count}


def test_grounding_dino_divides_by_matched_queries_named_or_not() -> None:
    def reference(objective: Objective, modules: dict[str, Any], features: dict[str, Tensor]) -> Terms:
        points, boxes = features["image_tokens"], features["boxes"]
        mask, words = (
            features["phrases_prompt_mask"],
            features["phrases_prompt_words"] & features["phrases_prompt_mask"][:, None],
        )
        logits, places = points @ features["phrases_prompt_tokens"].transpose(1, 2), predicted_places(modules, points)

        def cost(image: int, patch: int, box: int) -> Tensor:
            own = logits[image, patch][words[image, box]]
            return 2 * sum((focal(one, True) - focal(one, False) for one in own), torch.zeros(())) / max(len(own), 1)

        at = matched(cost, places, boxes)
        count = sum(map(len, at))
        named = [
            focal(logits[image, patch, word], patch in own and bool(words[image, own[patch], word]))
            for image, own in enumerate(at)
            for patch in range(SIDE**2)
            for word in mask[image].nonzero().flatten().tolist()
        ]
        return {"words": torch.stack(named).sum() / count, **box_terms(places, boxes, at, count)}

    objective = vlmdsl.compile("grounding_dino", compiled=False).double()
    check(objective, reference)


def test_mdetr_without_boxes_and_without_names() -> None:
    def reference(objective: Objective, modules: dict[str, Any], features: dict[str, Tensor]) -> Terms:
        points, boxes = features["image_tokens"], features["boxes"]
        mask, words = features["phrases_prompt_mask"], features["phrases_prompt_words"].double()
        log_shares = linear(modules, "positions", points).log_softmax(dim=2)
        places = predicted_places(modules, points)
        spread = words / (words.sum(dim=2, keepdim=True) + 1e-6)

        def cost(image: int, patch: int, box: int) -> Tensor:
            return -(log_shares[image, patch, :TOKENS].exp() * spread[image, box]).sum()

        at = matched(cost, places, boxes)
        count = sum(len(real(own)) for own in boxes)
        tokens = [
            -(spread[image, own[patch]] * log_shares[image, patch, :TOKENS]).sum()
            if patch in own
            else -0.1 * log_shares[image, patch, -1]
            for image, own in enumerate(at)
            for patch in range(SIDE**2)
        ]
        objects = F.normalize(linear(modules, "objects", points), dim=2)
        named = F.normalize(linear(modules, "words", features["phrases_prompt_tokens"]), dim=2)
        contrast = torch.zeros((), dtype=torch.float64)
        for image, own in enumerate(at):
            kept = mask[image]
            logits = objects[image] @ named[image, kept].T / 0.07
            positive = torch.zeros_like(logits, dtype=torch.bool)
            for patch, box in own.items():
                positive[patch] = words[image, box, kept] > 0
            for rows, chosen in ((logits, positive), (logits.T, positive.T)):
                for row, pairs in zip(rows, chosen, strict=True):
                    if pairs.any():
                        contrast = contrast + (row.logsumexp(dim=0) - row[pairs].sum() / (int(pairs.sum()) + 1e-6)) / 2
        return {
            "tokens": torch.stack(tokens).sum() / count,
            "contrast": contrast / count,
            **box_terms(places, boxes, at, count),
        }

    check(vlmdsl.compile("mdetr", compiled=False, positions=TOKENS).double(), reference)


def region_features(patches: Tensor, boxes: Tensor) -> Tensor:
    """The mean of 4 x 4 points of each box, between the centres of patches: [R, D]."""
    share = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    across, down = (boxes[:, side, None] + (boxes[:, side + 2] - boxes[:, side])[:, None] * share for side in (0, 1))
    points = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1) * 2 - 1
    grid = patches.unflatten(0, (SIDE, SIDE)).permute(2, 0, 1)[None]
    read = F.grid_sample(grid, points.flatten(1, 2)[None], padding_mode="border", align_corners=False)
    return read[0].mean(dim=2).T


@pytest.mark.parametrize("above", [0.6, 0.999], ids=["some are sure", "none is sure"])
def test_regions_of_regionclip_are_one_batch_of_all_images(above: float) -> None:
    """Regions that count are compared with the concepts of one another, -log of the probability of all of the same."""

    def reference(objective: Objective, modules: dict[str, Any], features: dict[str, Tensor]) -> Terms:
        (table,) = (F.normalize(each.values, dim=1) for each in objective.references.read().values())
        regions, taught = (
            torch.cat(
                [
                    region_features(tokens, boxes[real(boxes)])
                    for tokens, boxes in zip(features[f"image_{name}tokens"], features["boxes"], strict=True)
                ]
            )
            for name in ("", "teacher_")
        )
        shares = (F.normalize(taught, dim=1) @ table.T / 0.2).softmax(dim=1).detach()
        sure = shares.amax(dim=1) > above
        assert sure.any() == (above < 0.9)
        kept = sure if sure.any() else torch.ones_like(sure)
        units, concepts = F.normalize(regions[kept], dim=1), shares[kept].argmax(dim=1)
        own = (units @ table.T / 0.2).log_softmax(dim=1)
        chances = (units @ table[concepts].T / 0.2).softmax(dim=1)
        together = torch.where(concepts[:, None] == concepts, chances, 0.0).sum(dim=1)
        image = F.normalize(features["image_tokens"].mean(dim=1), dim=1)
        text, pairs = F.normalize(features["text"].detach(), dim=1), torch.arange(len(image))  # of a frozen tower
        logits = image @ text.T / 0.2
        return {
            "distillation": F.kl_div(own, shares[kept], reduction="batchmean"),
            "concepts": -together.log().mean(),
            "images": (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2,
        }

    knobs = {"temperature": 0.2, "above": above}
    check(vlmdsl.compile("regionclip", stage="regions", compiled=False, **knobs).double(), reference)
