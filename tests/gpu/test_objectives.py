"""Objectives on a CUDA device: the numbers of the CPU, in every precision, eager and compiled."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import vlmdsl
from bundled.objectives import OBJECTIVES
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.testing import example_features, example_modules

STEPS = 3
"""Steps of each comparison: queues, running means and teachers have moved on by then."""


def on_device(features: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The same features as new leaves."""
    return {
        name: value.to(device, dtype if value.is_floating_point() else value.dtype).requires_grad_(
            value.is_floating_point() and value.dim() > 0
        )
        for name, value in features.items()
    }


def steps(objective: Objective, device: str, dtype: torch.dtype, batch: int = 5) -> dict[str, Tensor]:
    """Losses, gradients and state over some steps, by name, in float64 on the CPU."""
    results: dict[str, Tensor] = {}
    modules = {name: module.to(device, dtype) for name, module in example_modules(objective).items()}
    for number in range(STEPS):
        features = on_device(example_features(objective, seed=number, batch=batch), device, dtype)
        objective.zero_grad()
        output = objective(modules=modules, **features)
        output.loss.backward()
        objective.after_step()
        results[f"loss {number}"] = output.loss
        results |= {f"gradient of {name} {number}": value.grad for name, value in features.items() if value.grad is not None}
        results |= {
            f"gradient of {name} {number}": parameter.grad
            for name, parameter in objective.named_parameters()
            if parameter.grad is not None
        }
    results |= {f"state {name}": value for name, value in objective.state_dict().items()}
    return {name: value.detach().to("cpu", torch.float64) for name, value in results.items()}


def differences(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> list[str]:
    """What differs by more than `tolerance`, relative to the largest entry of each tensor, absolute below 1."""
    assert actual.keys() == expected.keys()
    lines = []
    for name, value in actual.items():
        allowed = tolerance * max(1.0, expected[name].abs().max().item() if expected[name].numel() else 0.0)
        difference = (value - expected[name]).abs().max().item() if value.numel() else 0.0
        if not difference <= allowed:  # NaN is a difference
            lines.append(f"{name} differs by {difference:.2e}, more than {allowed:.2e}")
    return lines


def objective_of(name: str, *, compiled: bool = False) -> Objective:
    torch._dynamo.reset()
    return vlmdsl.compile(OBJECTIVES.get(name, name), compiled=compiled)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_gradients_and_state_are_those_of_the_cpu(name: str) -> None:
    expected = steps(objective_of(name).double(), "cpu", torch.float64)
    actual = steps(objective_of(name).double().cuda(), "cuda", torch.float64)
    assert differences(actual, expected, 1e-9) == []


@pytest.mark.parametrize("name", OBJECTIVES)
def test_float32_is_float64_rounded(name: str) -> None:
    expected = steps(objective_of(name).double(), "cpu", torch.float64)
    actual = steps(objective_of(name).cuda(), "cuda", torch.float32)
    assert differences(actual, expected, 2e-3) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["clip", "siglip", "filip"])
def test_short_floats_come_near(name: str, dtype: torch.dtype) -> None:
    expected = steps(objective_of(name).double(), "cpu", torch.float64, batch=64)
    actual = steps(objective_of(name).cuda(), "cuda", dtype, batch=64)
    assert differences(actual, expected, 0.05) == []


@pytest.mark.slow  # a minute for every few recipes: `make gpu` leaves it out
@pytest.mark.parametrize("name", OBJECTIVES)
def test_compiled_is_eager(name: str) -> None:
    expected = steps(objective_of(name).cuda(), "cuda", torch.float32)
    actual = steps(objective_of(name, compiled=True).cuda(), "cuda", torch.float32)
    assert differences(actual, expected, 2e-4) == []


@pytest.mark.parametrize("name", ["clip", "siglip", "filip", "declip"])
def test_batches_of_any_size_share_three_graphs(name: str) -> None:
    eager, compiled = objective_of(name).cuda(), objective_of(name, compiled=True).cuda()
    counters.clear()
    for batch in (16, 24, 1, 33, 16, 7):
        results = []
        for objective in (eager, compiled):
            features = on_device(example_features(objective, batch=batch), "cuda", torch.float32)
            output = objective(**features)
            output.loss.backward()
            gradients = {key: value.grad for key, value in features.items() if value.grad is not None}
            results.append({key: value.detach().double() for key, value in ({"loss": output.loss} | gradients).items()})
        assert differences(results[1], results[0], 2e-4) == [], batch
    assert counters["stats"]["unique_graphs"] <= 3


def test_large_products_of_float16_neither_overflow_nor_vanish() -> None:
    """The inner products of vectors of length 4,096 with entries of 8 pass the range of float16."""
    objective = vlmdsl.compile("minimize contrast(image, text, sim=dot, temperature=1e5)", compiled=False)
    generator = torch.Generator().manual_seed(0)
    image, text = (8 + torch.randn(256, 4096, generator=generator) for _ in range(2))
    results = []
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float16)):
        leaves = [value.to(torch.float16).to(device, dtype).requires_grad_() for value in (image, text)]
        output = objective.to(device)(image=leaves[0], text=leaves[1])
        (2**16 * output.loss).backward()  # as a GradScaler does: the leaves are float16 too
        gradients = [leaf.grad.to("cpu", torch.float64) for leaf in leaves if leaf.grad is not None]
        results.append([output.loss.detach().to("cpu", torch.float64), *gradients])
    for actual, expected in zip(results[1], results[0], strict=True):
        assert (actual - expected).norm() <= 0.01 * expected.norm()


def test_inputs_on_two_devices_are_named() -> None:
    objective = vlmdsl.compile("clip", compiled=False).cuda()
    with pytest.raises(ValueError, match=r"image is on cuda.*text is on cpu"):
        objective(image=torch.randn(4, 8, device="cuda"), text=torch.randn(4, 8))
