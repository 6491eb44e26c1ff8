"""An objective calls the function that was chosen, and no other: counted calls, for each way to ask for one."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import vlmdsl
from vlmdsl.api.compile import compile_built
from vlmdsl.api.driver import build
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops.tiled import blocks
from vlmdsl.planning.lowering import LoweringRequest
from vlmdsl.testing.laws import example_features

BOTH = {"clip": "contrast", "siglip": "sigmoid_loss", "filip": "similarity"}
"""A recipe and the function of its that has two forms."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each form of each function was called."""
    counted: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            counted[name] += 1
            return function(*arguments, **options)

        return count

    for name in set(BOTH.values()):
        monkeypatch.setattr(ops, name, counting(f"dense {name}", getattr(ops, name)))
        monkeypatch.setattr(ops.tiled, name, counting(f"chunked {name}", getattr(ops.tiled, name)))
    return counted


def loss_of(objective: vlmdsl.Objective, batch: int) -> Tensor:
    return objective(**example_features(objective, seed=0, batch=batch, tokens=3)).loss


@pytest.mark.parametrize("recipe", BOTH)
@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_what_is_asked_for_is_called(recipe: str, lowering: str, calls: Counter[str]) -> None:
    loss_of(vlmdsl.compile(recipe, compiled=False, lowering=lowering).double(), 4)
    other = {"dense": "chunked", "chunked": "dense"}[lowering]
    assert calls[f"{lowering} {BOTH[recipe]}"] == 1
    assert calls[f"{other} {BOTH[recipe]}"] == 0


def test_by_itself_it_follows_the_sizes_of_each_batch(calls: Counter[str]) -> None:
    """A matrix of 4 by 4 numbers and its gradient fit 200 bytes, those of 16 by 16 do not."""
    objective = compile_built(build("clip"), compiled=False, lowering=LoweringRequest(budget=500)).double()
    for batch in (4, 16, 4, 16, 16):
        loss_of(objective, batch)
    assert (calls["dense contrast"], calls["chunked contrast"]) == (2, 3)


def test_both_forms_give_one_objective_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocks.BLOCK_NUMBERS, "cpu", 20)
    for recipe in BOTH:
        results = []
        for lowering in ("dense", "chunked"):
            objective = vlmdsl.compile(recipe, compiled=False, lowering=lowering).double()
            features = example_features(objective, seed=0, batch=6, tokens=3)
            leaves = {
                name: value.requires_grad_() if value.is_floating_point() else value for name, value in features.items()
            }
            with torch.autocast("cpu", dtype=torch.bfloat16):  # has no say
                loss = objective(**leaves).loss
            loss.backward()
            learned = [parameter.grad for parameter in objective.parameters()]
            results.append([loss, *(leaf.grad for leaf in leaves.values() if leaf.requires_grad), *learned])
        for dense, tiled in zip(*results, strict=True):
            torch.testing.assert_close(tiled, dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("recipe", BOTH)
def test_blocks_have_shapes_on_the_meta_device(recipe: str) -> None:
    objective = vlmdsl.compile(recipe, lowering="chunked").to("meta")
    features = {name: value.to("meta") for name, value in example_features(objective, seed=0, batch=6, tokens=3).items()}
    leaves = {name: value.requires_grad_() if value.is_floating_point() else value for name, value in features.items()}
    objective(**leaves).loss.backward()
    assert all(leaf.grad.shape == leaf.shape for leaf in leaves.values() if leaf.requires_grad)


def test_a_copy_does_not_keep_the_original_alive() -> None:
    original = vlmdsl.compile("clip", compiled=False)
    copied, alive = copy.deepcopy(original), weakref.ref(original)
    del original
    gc.collect()
    assert alive() is None
    assert torch.isfinite(loss_of(copied.double(), 4))


@pytest.mark.filterwarnings("ignore:the similarity matrices of this batch")
def test_three_graphs_serve_every_size_on_both_sides_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first size, all others, one sample, whether a size by itself would choose matrices or blocks."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    eager = compile_built(build("clip"), compiled=False)
    for batches in ((4, 6, 5, 1, 16, 20, 24, 17, 4, 20), (20, 4, 1, 24, 6, 20)):
        torch._dynamo.reset()
        counters.clear()
        chooses = compile_built(build("clip"), lowering=LoweringRequest(budget=2**10))
        for batch in batches:
            features = {name: value.float() for name, value in example_features(eager, seed=0, batch=batch).items()}
            leaves = {name: value.clone().requires_grad_() for name, value in features.items()}
            loss = chooses(**leaves).loss
            loss.backward()
            torch.testing.assert_close(loss, eager(**features).loss, rtol=1e-5, atol=1e-6)
        assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.parametrize(
    ("batches", "dense", "chunked", "warned"),
    [((4, 8, 6, 16), 4, 0, 1), ((4, 16, 8, 4), 2, 2, 0), ((16, 4, 16, 12), 2, 2, 1), ((4, 16, 1), 2, 1, 0)],
)
def test_the_first_sizes_and_the_first_others_run_as_they_are_planned(
    batches: tuple[int, ...],
    dense: int,
    chunked: int,
    warned: int,
    monkeypatch: pytest.MonkeyPatch,
    calls: Counter[str],
) -> None:
    """Sizes from 12 on ask for blocks by themselves; a graph of matrices says that they are too large for it."""
    monkeypatch.setattr("vlmdsl.backends.torch.compiled.torch.compile", lambda function, **options: function)
    objective = compile_built(build("clip"), lowering=LoweringRequest(budget=1000))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in batches:
            objective(**{name: value.float() for name, value in example_features(objective, seed=0, batch=batch).items()})
    assert (calls["dense contrast"], calls["chunked contrast"]) == (dense, chunked)
    assert sum("too large for the graph" in str(warning.message) for warning in caught) == warned
