"""Every bundled recipe means the same on one process and on several: loss, gradients of features and of learned numbers."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import hyper_parameters_of
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.testing import example_features, example_modules
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 8
BY_FAISS = "ra_clip, searched by faiss"
RECIPES = list(OBJECTIVES) + ([BY_FAISS] if importlib.util.find_spec("faiss") else [])


def all_recipes() -> dict[str, dict[str, Tensor]]:
    """This process's part of everything; gradients are divided by the number of processes, as DDP's mean would."""
    distributed = torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if distributed else 1
    return {name: _one_recipe(name, processes) for name in RECIPES}


def _one_recipe(name: str, processes: int) -> dict[str, Tensor]:
    objective = _compiled(name).double()
    batch = example_features(objective, seed=5, batch=SAMPLES)
    if name == BY_FAISS:
        tables = objective.references.read()
        keys = next(iter(tables.values())).keys
        objective.references.fill({column: table.values for column, table in tables.items()}, keys, search="faiss")
    features = {key: own_slice(value).clone() for key, value in batch.items()}
    for value in features.values():
        value.requires_grad_(value.is_floating_point() and value.dim() > 0)
    loss = objective(modules=example_modules(objective), **features).loss
    loss.backward()
    results = {"loss": loss.detach()}
    for key, value in features.items():
        if value.grad is not None:
            results[f"gradient of {key}"] = value.grad / processes
    for key, parameter in objective.named_parameters():
        results[f"gradient of {key}"] = parameter.grad / processes
    return results


def _compiled(name: str) -> vlmdsl.Objective:
    recipe = OBJECTIVES[name.split(",")[0]]
    return vlmdsl.compile(recipe, compiled=False, **hyper_parameters_of(recipe))


@pytest.mark.parametrize("processes", [2, 4])
def test_recipes_do_not_depend_on_the_number_of_processes(processes: int) -> None:
    expected = all_recipes()
    shares = run_processes(all_recipes, processes)
    learned = {key for name in RECIPES for key, _ in _compiled(name).named_parameters()}
    for name in RECIPES:
        for what, value in expected[name].items():
            parts = [share[name][what] for share in shares]
            if what == "loss":
                assert all(torch.equal(part, parts[0]) for part in parts), f"{name}: processes disagree about the loss"
                joined = parts[0]
            elif what.removeprefix("gradient of ") in learned:
                joined = torch.stack(parts).sum(dim=0)
            else:
                joined = torch.cat(parts)
            _agrees(joined, value, f"{name}, {what}")


def _agrees(value: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12, msg=lambda text: f"{what}: {text}")
