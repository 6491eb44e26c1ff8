"""Recipes with state give the numbers of every step of a run: losses, gradients, and what outlives the step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vlmdsl
from oracles.cases import DATA


@dataclass(frozen=True)
class Steps:
    """One oracle of several steps; in the names of its arrays `{}` stands for the step.

    `unit` tells that the oracle's inputs have been normalised before: its gradients are then those of ours but for the part
    along each vector, which our own normalisation takes away. `before` and `after` map our state to theirs.
    """

    oracle: str
    recipe: str
    count: int
    inputs: Mapping[str, str]
    parameters: Mapping[str, str]
    terms: Mapping[str, str]
    before: Mapping[str, str]
    after: Mapping[str, str]
    unit: bool = False


MEANS = {"state.language_mean": "H_text", "state.raw_mean": "H_raw", "state.clean_mean": "H_caption"}
ALIP = {
    "recipe": "alip",
    "inputs": {"image": "image_embed_{}", "text": "raw_embed_{}", "caption": "caption_embed_{}"},
    "parameters": {"log_scale": "log_scale"},
    "terms": {"raw": "out_loss_raw_{}", "clean": "out_loss_caption_{}"},
    "before": {name: f"{key}_init" for name, key in MEANS.items()},
    "after": {name: f"out_{key}_{{}}" for name, key in MEANS.items()},
    "unit": True,
}
CASES = [Steps("alip-steps-cold", count=3, **ALIP), Steps("alip-steps-allopen", count=1, **ALIP)]


def _step(case: Steps, objective: torch.nn.Module, arrays: Mapping[str, Any], step: int, rtol: float) -> None:
    def expected(name: str) -> Tensor:
        return torch.from_numpy(np.asarray(arrays[name.format(step)]))

    def agrees(value: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(value.detach(), expected.reshape(value.shape), rtol=rtol, atol=1e-12)

    objective.zero_grad()
    features = {name: expected(key).clone().requires_grad_() for name, key in case.inputs.items()}
    out = objective(**features)
    out.loss.backward()
    for term, key in case.terms.items():
        agrees(out.terms[term], expected(key))
    for name, key in case.inputs.items():
        gradient, x = expected(f"grad_{key}"), features[name].detach()
        agrees(features[name].grad, gradient - x * (x * gradient).sum(-1, keepdim=True) if case.unit else gradient)
    for name, key in case.parameters.items():
        agrees(objective.get_parameter(name).grad, expected(f"grad_{key}_{{}}"))
    for name, key in case.after.items():
        agrees(objective.get_buffer(name), expected(key))


def _check(case: Steps, *, compiled: bool) -> None:
    with np.load(DATA / f"{case.oracle}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    rtol = json.loads((DATA / f"{case.oracle}.json").read_text())["rtol"]
    objective = vlmdsl.compile(case.recipe, compiled=compiled).double()
    state = objective.state_dict()
    for name, key in (*case.parameters.items(), *case.before.items()):
        state[name] = torch.from_numpy(np.asarray(arrays[key]))
    objective.load_state_dict(state)
    for step in range(case.count):
        _step(case, objective, arrays, step, rtol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.oracle)
def test_recipe_gives_every_step(case: Steps) -> None:
    _check(case, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.oracle)
def test_compiled_recipe_gives_every_step(case: Steps) -> None:
    _check(case, compiled=True)
