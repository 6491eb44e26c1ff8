"""A compiled objective is one graph per function, without a break, and stays so where sizes stay. It takes any sequence of
sizes, lengths and gradient modes: three graphs at most of each of its functions, and the same numbers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import Module

import vlmdsl
from bundled.objectives import OBJECTIVES, functions_on_features
from bundled.runs import hyper_parameters_of
from vlmdsl.testing import example_features, example_modules

SIZES = [(5, 4)] * 3 + [(1, 2), (2, 3), (3, 7), (64, 1), (63, 2), (100, 3), (17, 9), (256, 2), (31, 5), (1, 5), (5, 6)]
"""Samples and tokens: the same in the first three steps. A length of one, and axes equally long by chance, are among
the others."""
QUEUE = """vlo 1
recipe queued(image: Image, text: Text)
let recent = queue(text, size=8)
minimize memory_contrast(image, text, recent, temperature=0.5)
"""


@pytest.fixture(autouse=True)
def captured_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured, and run without the code that takes most of the time to make, C++ above all, and cannot add a
    break. tests/oracles run one case of every recipe through all of it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()


def inputs_for(objective: vlmdsl.Objective, batch: int, tokens: int) -> dict[str, Tensor]:
    features = example_features(objective, seed=batch, batch=batch, tokens=tokens)
    return {name: value.float() if value.is_floating_point() else value for name, value in features.items()}


def modules_for(objective: vlmdsl.Objective, tokens: int) -> dict[str, Module]:
    return {name: module.float() for name, module in example_modules(objective, tokens=tokens).items()}


def gradients(objective: vlmdsl.Objective, features: dict[str, Tensor], tokens: int) -> dict[str, Tensor]:
    """The loss and its gradient with respect to everything that has one."""
    leaves = {name: value.clone() for name, value in features.items()}
    for value in leaves.values():
        value.requires_grad_(value.is_floating_point() and value.dim() > 0)
    objective.zero_grad()
    loss = objective(modules=modules_for(objective, tokens), **leaves).loss
    loss.backward()
    slopes = {name: value.grad for name, value in [*leaves.items(), *objective.named_parameters()]}
    return {"loss": loss.detach()} | {name: value for name, value in slopes.items() if value is not None}


def agree(recipe: str, sizes: list[tuple[int, int]]) -> vlmdsl.Objective:
    """Compare the numbers at these sizes; where the first ones are equal, there is one graph of each function after them."""
    knobs = hyper_parameters_of(recipe) if recipe in OBJECTIVES.values() else {}
    compiled, eager = vlmdsl.compile(recipe, **knobs), vlmdsl.compile(recipe, compiled=False, **knobs)
    stays = next((place for place, size in enumerate(sizes) if size != sizes[0]), len(sizes))
    if any("H" in spec.axes for spec in compiled.inputs.values()):  # all images of a run have one size
        sizes = [(batch, 4) for batch, _ in sizes]
    for turn, (batch, tokens) in enumerate(sizes):
        features = inputs_for(compiled, batch, tokens)
        inputs_for(eager, batch, tokens)  # fills its reference set
        if turn < 5:
            with torch.no_grad() if turn % 2 else torch.inference_mode():
                compiled.eval()(
                    modules=modules_for(compiled, tokens), **{name: value.clone() for name, value in features.items()}
                )
        results, expected = (gradients(objective.train(), features, tokens) for objective in (compiled, eager))
        for objective in (compiled, eager):
            objective.after_step()
            objective.after_epoch()
        assert results.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                results[name], value, rtol=2e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        if turn == stays - 1:
            assert counters["stats"]["unique_graphs"] == functions_on_features(eager)
            assert counters["recompiles"] == {}
            assert counters["frames"]["ok"] == counters["frames"]["total"]
    assert counters["graph_break"] == {}
    return eager


KEPT = """
recipe kept(image: Image, text: Text)
let s = score(image, text)
let noise = mixture(running_mean(1 - s, per="sample", momentum=0))
minimize contrast(image, text, weight=(1 - noise) * exp(running_mean(s, per="sample", momentum=0.5)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [*OBJECTIVES.values(), KEPT], ids=[*OBJECTIVES, "numbers kept per sample"])
def test_one_graph_where_sizes_stay_and_three_whatever_come(recipe: str) -> None:
    eager = agree(recipe, SIZES)
    assert counters["stats"]["unique_graphs"] <= 3 * functions_on_features(eager)


def test_the_first_size_may_be_one() -> None:
    agree("filip", [(1, 1), (1, 3), (4, 1), (3, 4)])
    assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.slow
def test_batches_may_be_smaller_and_larger_than_a_queue() -> None:
    agree(QUEUE, [(2, 1), (3, 1), (7, 1), (8, 1), (9, 1), (40, 1), (1, 1), (16, 1)])
    assert counters["stats"]["unique_graphs"] <= 3


def test_layouts_marks_and_frozen_numbers_compile_nothing_new() -> None:
    objective = vlmdsl.compile("siglip")
    wide = torch.randn(6, 16, requires_grad=True)
    plain = {"image": wide[:, :8].detach().clone().requires_grad_(), "text": torch.randn(6, 8, requires_grad=True)}
    expected = objective(**plain).loss
    marked = plain["image"].detach().clone()
    torch._dynamo.mark_dynamic(marked, 0)
    for image in (wide[:, :8], torch.nn.Parameter(wide[:, :8].detach().clone()), plain["image"].detach(), marked):
        torch.testing.assert_close(
            objective(text=plain["text"], image=image).loss, objective(image=image, text=plain["text"]).loss
        )
    objective.requires_grad_(False)
    objective(**plain).loss.backward()
    assert plain["image"].grad is not None
    assert expected.requires_grad
    assert counters["stats"]["unique_graphs"] == 1


def test_another_dtype_is_compiled_and_right() -> None:
    objective = vlmdsl.compile("siglip")
    features = {"image": torch.randn(4, 8), "text": torch.randn(4, 8)}
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.float32):
        cast = {name: value.to(dtype) for name, value in features.items()}
        torch.testing.assert_close(
            objective(**cast).loss, vlmdsl.compile("siglip", compiled=False)(**cast).loss, rtol=1e-3, atol=1e-3
        )
    assert counters["stats"]["unique_graphs"] == 3
