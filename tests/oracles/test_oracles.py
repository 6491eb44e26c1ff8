"""Every recipe gives the loss and the gradients of every oracle it has, and compiled those of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vlmdsl
from oracles.cases import CASES, Case
from vlmdsl.planning.chunked import BLOCK_NUMBERS

IN_BLOCKS = [case for case in CASES if "ops.tiled." in vlmdsl.emit(case.recipe, lowering="chunked", knobs=case.knobs)]
"""Those that have an operation with a chunked form."""
COMPILED = list({(case.recipe, case.stage, repr(case.knobs)): case for case in reversed(CASES)}.values())
"""One of each code: other numbers for it are compared without the seconds that its compilation takes."""


def _tensors(case: Case, arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    features = {name: torch.from_numpy(arrays[key].copy()) for name, key in case.inputs.items()}
    return {name: value.requires_grad_() if value.is_floating_point() else value for name, value in features.items()}


def _agrees(value: torch.Tensor, expected: Any, rtol: float, what: str) -> None:
    reference = torch.as_tensor(expected, dtype=torch.float64).reshape(value.shape)
    torch.testing.assert_close(value, reference, rtol=rtol, atol=rtol * 1e-2 + 1e-12, msg=lambda text: f"{what}: {text}")


def _check(case: Case, *, compiled: bool, lowering: str = "auto") -> None:
    arrays, rtol = case.load()
    objective = vlmdsl.compile(case.recipe, compiled=compiled, lowering=lowering, stage=case.stage, **case.knobs).double()
    assert ("ops.tiled." in objective.source) is (lowering == "chunked")
    with torch.no_grad():
        for name, key in case.parameters.items():
            objective.get_parameter(name).fill_(float(arrays[key].reshape(())))
    features = _tensors(case, arrays)
    loss = objective(**features).loss * case.times
    loss.backward()
    _agrees(loss.detach(), arrays[case.total], rtol, "loss")
    for name, key in case.inputs.items():
        if name in case.no_gradient:
            assert features[name].grad is None
        elif features[name].requires_grad and name not in case.unstated:
            _agrees(features[name].grad, arrays[f"grad_{key}"], rtol, f"gradient of {name}")
    for name, key in case.parameters.items():
        _agrees(objective.get_parameter(name).grad, arrays[f"grad_{key}"], rtol, f"gradient of {name}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.oracle}")
def test_recipe_gives_the_oracle(case: Case) -> None:
    _check(case, compiled=False)


@pytest.mark.parametrize("case", IN_BLOCKS, ids=lambda case: f"{case.oracle}")
def test_recipe_in_blocks_gives_the_oracle(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCK_NUMBERS, "cpu", 40)  # a few rows at a time
    _check(case, compiled=False, lowering="chunked")


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILED, ids=lambda case: f"{case.oracle}")
def test_compiled_recipe_gives_the_oracle(case: Case) -> None:
    _check(case, compiled=True)
