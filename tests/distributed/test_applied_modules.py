"""An objective that applies modules to features gives the loss and gradients of one process, however many share a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vlmdsl
from bundled.runs import ALBEF_CORE
from vlmdsl.backends.torch.collectives import own_slice, process_count
from vlmdsl.primitives import all_primitives
from vlmdsl.testing import example_features, example_modules
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

WORDS = ("fuse", "matched", "decode", "pixels", "reconstruct")
SAMPLES = 8


def results() -> dict[str, Tensor]:
    """Of each recipe the loss, the gradients of this process's features and its share of those of the modules."""
    recipes = {word: all_primitives()[word].example for word in WORDS} | {"albef": ALBEF_CORE, "mae": "mae"}
    values: dict[str, Tensor] = {}
    for name, recipe in recipes.items():
        objective = vlmdsl.compile(recipe, compiled=False).double()
        assert objective.applied, name
        features = {key: own_slice(value) for key, value in example_features(objective, batch=SAMPLES).items()}
        leaves = {key: value.clone().requires_grad_(value.is_floating_point()) for key, value in features.items()}
        modules = example_modules(objective)
        loss = objective(modules=modules, **leaves).loss
        loss.backward()
        values[f"{name}: loss"] = loss.detach()
        for key, leaf in leaves.items():
            if leaf.grad is not None:
                values[f"{name}: gradient {key}"] = leaf.grad / process_count()
        for module, key, value in ((m, k, v) for m, own in modules.items() for k, v in own.named_parameters()):
            if value.grad is not None:
                values[f"{name}: parameter {module} {key}"] = value.grad / process_count()
    return values


def test_two_processes_have_the_gradients_of_one() -> None:
    expected, parts = results(), run_processes(results, 2)
    assert len(expected) > 50
    for key, value in expected.items():
        shares = [part[key] for part in parts]
        if ": gradient" in key:
            shares = [torch.cat(shares)]
        elif ": parameter" in key:
            shares = [torch.stack(shares).sum(dim=0)]
        for share in shares:
            torch.testing.assert_close(share, value, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")
