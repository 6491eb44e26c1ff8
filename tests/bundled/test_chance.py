"""Every bundled recipe: the loss that the log calls chance is the loss of features that are all the same."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import hyper_parameters_of
from vlmdsl.testing import example_features, example_modules

UNKNOWN = {
    "albef": "a share that a schedule moves",
    "alip": "weights",
    "altclip.distillation": "a teacher's features",
    "beit": "codes",
    "blip": "a share that a schedule moves",
    "detclip": "boxes",
    "fiber.fine": "boxes",
    "glip": "boxes",
    "flava.images": "codes",
    "flava.texts": "words",
    "grounding_dino": "boxes",
    "mdetr": "boxes",
    "byol": "no candidates",
    "cappa": "a vocabulary",
    "kelip.pixels": "pixels",
    "mae": "pixels",
    "nclip": "clusters",
    "nlip.captioner": "a vocabulary",
    **dict.fromkeys(("pali.language", "pali.all"), "a vocabulary"),
    "simsiam": "no candidates",
    **dict.fromkeys(("simvlm.pairs", "simvlm.documents"), "a vocabulary"),
    "siglip": "sigmoids of each pair",
}
"""Objectives of which no term's chance is known, and why."""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_chance_is_the_loss_of_equal_features(name: str) -> None:
    recipe = OBJECTIVES[name]
    objective = vlmdsl.compile(recipe, compiled=False, **hyper_parameters_of(recipe)).double()
    modules = example_modules(objective)
    chances: dict[str, float] = {}
    for step in range(5):  # until no random direction is left in a queue
        inputs = example_features(objective, seed=step)
        inputs |= {
            name: torch.ones_like(value) for name, value in inputs.items() if value.is_floating_point() and value.dim()
        }
        features = {column.name: torch.ones(4, 6) for column in objective.references.columns}
        if features:
            objective.references.fill(features, torch.arange(4))
        out = objective(modules=modules, **inputs)
        chances = {name: value.item() for name, value in out.metrics.items() if name.endswith(".chance")}
    terms = {name: out.terms[name.removesuffix(".chance")].item() for name in chances}
    assert terms == pytest.approx(chances, rel=1e-6)
    assert bool(chances) == (name not in UNKNOWN)
