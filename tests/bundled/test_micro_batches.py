"""Every bundled recipe: a step in micro-batches has the losses and the gradient of the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import (
    ALBEF_CORE,
    DATA,
    DROPPED_CONTEXT,
    NOISY,
    PER_SAMPLE,
    SETTINGS,
    columns_of,
    hyper_parameters_of,
    with_tiny_towers,
)
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import build_model, open_data, read_tokenizers, training_batches
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.reference import prepare
from vlmdsl.runtime.values import Batch, map_tensors
from vlmdsl.schema import load_config

HERE = World(0, 1, torch.device("cpu"))


def model_and_batch(recipe: str, world: World = HERE, lowering: str = "auto") -> tuple[VisionLanguageModel, Batch]:
    """A tiny model of a recipe in float64, in training mode, and this process's share of a batch of 8 samples."""
    hyper_parameters = hyper_parameters_of(recipe) if recipe in OBJECTIVES.values() else {}
    objective = vlmdsl.compile(recipe, compiled=False, lowering=lowering, **hyper_parameters)
    settings = SETTINGS | {"train.steps": 2, "data.train": (DATA,), "data.map": columns_of(objective.program)}
    config, faults = load_config(flags=settings)
    assert config is not None, faults
    data = open_data(objective.program, config)
    tokenizers = read_tokenizers(objective, config.model, data)
    model = build_model(objective, config, tokenizers, world, data.mapping.facts)
    if objective.state.per_sample:
        objective.state.allocate_samples(len(data.train))
    prepare(model, data, config)
    batch = next(iter(training_batches(objective.program, config, data, model, world)))
    return model.double().train(), in_double(batch)


def in_double(batch: Batch) -> Batch:
    def double(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    values = {name: map_tensors(double, value) for name, value in batch.values.items()}
    return Batch(values, batch.index, batch.keys, {name: double(draw) for name, draw in batch.draws.items()})


@pytest.mark.parametrize(
    "recipe",
    [*OBJECTIVES.values(), ALBEF_CORE, DROPPED_CONTEXT, PER_SAMPLE, NOISY],
    ids=[*OBJECTIVES, "fusion", "contexts", "numbers kept per sample", "weights of samples"],
)
def test_the_gradient_is_that_of_the_whole_batch(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    whole, batch = model_and_batch(recipe)
    cached = copy.deepcopy(whole)
    expected = whole(batch)
    expected.loss.backward()
    step = vlmdsl.CachedStep(cached, micro=3)
    output = step(batch)
    step.backward(output.loss)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    # A bias before a batch norm has the gradient 0: what rounding leaves of it is as small as that of the others.
    largest = max(float(weight.grad.abs().max()) for weight in whole.parameters() if weight.grad is not None)
    for (name, plain), replayed in zip(whole.named_parameters(), cached.parameters(), strict=True):
        assert (plain.grad is None) == (replayed.grad is None), name
        if plain.grad is not None:
            torch.testing.assert_close(replayed.grad, plain.grad, rtol=1e-10, atol=1e-12 * largest)
    for (name, plain), other in zip(whole.state_dict().items(), cached.state_dict().values(), strict=True):
        torch.testing.assert_close(
            other, plain, rtol=1e-10, atol=1e-12, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )


class SliceGradients(TorchDispatchMode):
    """Counts gradients of some of `samples`, each of which is a tensor of the size of all of them."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples, self.count = samples, 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is torch.ops.aten.slice_backward.default:
            _, sizes, axis, *_ = arguments
            self.count += axis == 0 and sizes[0] == self.samples
        return function(*arguments, **(options or {}))


def test_what_fusion_takes_has_no_gradient_of_full_size_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    model, batch = model_and_batch(ALBEF_CORE)
    step = vlmdsl.CachedStep(model, micro=2)
    output = step(batch)
    with SliceGradients(len(batch.keys)) as gradients:
        step.backward(output.loss)
    assert gradients.count == 0
