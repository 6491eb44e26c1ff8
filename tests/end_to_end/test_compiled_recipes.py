"""Every bundled recipe compiles to one graph per function, without a break, and stays compiled for a fixed signature."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

import vlmdsl
from bundled.objectives import OBJECTIVES, functions_on_features
from vlmdsl.testing import example_features, example_modules


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OBJECTIVES.values(), ids=OBJECTIVES)
def test_one_graph_and_no_recompilation(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Graphs are captured before any code is made of them: what follows, C++ above all, takes most of the time and cannot add
    # a break. tests/oracles run one case of every recipe through all of it.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    objective = vlmdsl.compile(recipe)
    modules = {name: module.float() for name, module in example_modules(objective).items()}
    for step in range(3):
        features = {
            key: value.float().requires_grad_() if value.is_floating_point() else value
            for key, value in example_features(objective, seed=step).items()
        }
        objective(modules=modules, **features).loss.backward()
        objective.after_step()
    assert counters["graph_break"] == {}
    assert counters["stats"]["unique_graphs"] == functions_on_features(objective)
    assert counters["recompiles"] == {}
    assert counters["frames"]["ok"] == counters["frames"]["total"]
