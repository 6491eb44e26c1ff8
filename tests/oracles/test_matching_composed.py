"""ALBEF and BLIP as a whole, with padded texts and a teacher that has a share: every term and gradient of their formulas.

The authors' numbers are of one term at a time, without padding; here the formulas are in plain float64 over modules that are
called as the authors' are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.testing import example_features, example_modules

VIEW, TAU = "image_augment_mae_0", 0.3
Features = dict[str, Tensor]


def drawn(logits: Tensor, floor: float, uniform: Tensor) -> list[int]:
    """One other sample of each row: the softmax plus the floor, without the pair, by the inverse of its sums."""
    weights = (logits.softmax(dim=1) + floor).fill_diagonal_(0.0)
    return [int((row.cumsum(dim=0) > level * row.sum()).int().argmax()) for row, level in zip(weights, uniform, strict=True)]


def itc(features: Features, queues: dict[str, Tensor], tau: Tensor) -> Tensor:
    """Half of both directions, of targets of which `alpha` is the teacher's own distribution."""
    parts = {"image": f"{VIEW}_contrast", "text": "text_contrast"}
    own = {side: F.normalize(features[name], dim=1) for side, name in parts.items()}
    taught = {side: F.normalize(features[f"{name}_teacher"], dim=1).detach() for side, name in parts.items()}
    losses = []
    for side, other in (("image", "text"), ("text", "image")):
        keys = torch.cat([taught[other], queues[f"{other}s"]])
        soft = (taught[side] @ keys.T / tau.detach()).softmax(dim=1)
        hard = torch.eye(len(soft), len(keys), dtype=soft.dtype)
        target = features["alpha"] * soft + (1 - features["alpha"]) * hard
        losses.append(-(target * (own[side] @ keys.T / tau).log_softmax(dim=1)).sum(dim=1).mean())
    return (losses[0] + losses[1]) / 2


def itm(features: Features, modules: dict[str, Any], tau: Tensor, floor: float, text: str) -> Tensor:
    """Pairs, then each text with a drawn image, then each image with a drawn text."""
    image, mask = features[f"{VIEW}_states"], features["text_mask"]
    teacher = {side: F.normalize(features[f"{side}_contrast_teacher"], dim=1) for side in (VIEW, "text")}
    own = {side: F.normalize(features[f"{side}_contrast"], dim=1) for side in (VIEW, "text")}
    images = drawn((own["text"] @ teacher[VIEW].T / tau).detach(), floor, features["wrong_image_uniform"])
    texts = drawn((own[VIEW] @ teacher["text"].T / tau).detach(), floor, features["wrong_text_uniform"])
    every = list(range(len(image)))
    assert not any(pick == sample for picks in (images, texts) for sample, pick in enumerate(picks))
    rows = [(every, every), (every, images), (texts, every)]
    pooled = [
        modules["fusion"](features[text][words], mask[words], image[shown], features[f"{VIEW}_mask"][shown]).pooled
        for words, shown in rows
    ]
    labels = torch.tensor([1] * len(every) + [0] * 2 * len(every))
    return F.cross_entropy(modules["matched"](torch.cat(pooled)), labels)


def mlm(features: Features, modules: dict[str, Any]) -> Tensor:
    """The mean over masked tokens of (1 - alpha) of the label's cross-entropy and alpha of the teacher's."""

    def logits(teacher: str) -> Tensor:
        words = [features[f"text_masked{teacher}_{part}"] for part in ("states", "mask")]
        image = [features[f"{VIEW}{teacher}_{part}"] for part in ("states", "mask")]
        return modules[f"vocabulary{teacher}"](modules[f"fusion{teacher}"](*words, *image).tokens)

    targets = features["text_masked_fusion_targets"]
    at = targets >= 0
    own, taught = logits("")[at], logits("_teacher")[at].detach().softmax(dim=1)
    return (1 - features["alpha"]) * F.cross_entropy(own, targets[at]) + features["alpha"] * F.cross_entropy(own, taught)


def lm(features: Features) -> Tensor:
    """The mean over tokens that are not padding, a tenth of each label spread over the vocabulary."""
    logits, targets = features["text_captioner_vocabulary"], features["text_captioner_next"]
    return F.cross_entropy(logits[targets >= 0], targets[targets >= 0], label_smoothing=0.1)


def expected_terms(recipe: str, objective: Objective, modules: dict[str, Any], features: Features) -> Features:
    tau = objective.get_parameter("temperature")
    queues = {name: getattr(objective.state, name).clone() for name in ("images", "texts")}
    if recipe == "albef":
        matching, last = itm(features, modules, tau, 0.0, "text_states"), {"mlm": mlm(features, modules)}
    else:
        matching, last = itm(features, modules, tau, 1e-4, "text_embedded"), {"lm": lm(features)}
    return {"itc": itc(features, queues, tau), "itm": matching, **last}


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("recipe", ["albef", "blip"])
def test_every_term_and_gradient_is_that_of_the_formula(recipe: str, alpha: float) -> None:
    objective = vlmdsl.compile(recipe, compiled=False, size=12).double()
    modules, features = example_modules(objective), example_features(objective, seed=3)
    objective(modules=modules, **example_features(objective))  # fills a part of the queues
    features["alpha"] = torch.tensor(alpha, dtype=torch.float64)
    with torch.no_grad():
        objective.get_parameter("temperature").fill_(TAU)
    assert not features["text_mask"].all()
    learning = [value.requires_grad_() for value in features.values() if value.is_floating_point() and value.dim() > 1]
    learning += [weight for module in modules.values() for weight in module.parameters()]
    learning += list(objective.parameters())
    expected = expected_terms(recipe, objective, modules, features)
    terms = dict(objective(modules=modules, **features).terms)
    torch.testing.assert_close(terms, expected, rtol=1e-10, atol=0)
    both = (torch.autograd.grad(sum(each.values()), learning, allow_unused=True) for each in (terms, expected))
    for leaf, *gradients in zip(learning, *both, strict=True):
        own, theirs = (torch.zeros_like(leaf) if gradient is None else gradient for gradient in gradients)
        torch.testing.assert_close(own, theirs, rtol=1e-8, atol=1e-13)
