"""Every bundled recipe where there is little: padding only, nothing masked, no box, one sample.

Where the authors' code divides 0 by 0, a term is 0 and has no gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import hyper_parameters_of
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.testing import example_features, example_modules

PADDED = {"L": "tokens", "R": "boxes", "N": "concepts"}
"""Axes of inputs that are padded to the longest of a batch."""
MORE = 2
OF_TOKENS = {
    "albef": ("mlm",),
    "blip": ("lm",),
    "cappa": ("next_token",),
    "coca": ("captions",),
    "declip": ("mlm",),
    "fiber.coarse": ("mlm",),
    "flava.pairs": ("mmm_text",),
    "flava.texts": ("mlm",),
    "maskclip": ("words",),
    "nlip.captioner": ("captioned",),
    "nlip.pretraining": ("captions",),
    "pali.all": ("next_token",),
    "pali.language": ("next_token",),
    "simvlm.documents": ("next_token",),
    "simvlm.pairs": ("next_token",),
}
"""Terms that are means over tokens that are predicted."""
OF_PATCHES = {
    "beit": ("token_loss",),
    "flava.images": ("mim",),
    "flava.pairs": ("mmm_image",),
    "kelip.pixels": ("reconstruct",),
    "mae": ("reconstruct",),
    "maskclip": ("patches",),
    "nlip.pretraining": ("pixels",),
    "segclip": ("reconstruction",),
}
"""Terms that are means over patches that are dropped or replaced."""
OF_BOXES = {
    "detclip": ("centreness", "boxes"),
    "fiber.fine": ("giou", "centreness"),
    "glip": ("boxes", "centreness"),
    "grounding_dino": ("error", "giou"),
    "mdetr": ("contrast", "error", "giou"),
    "regionclip.regions": ("distillation", "concepts"),
}
"""Terms that are means over boxes, or over what is assigned to them."""


def objective_of(name: str) -> Objective:
    recipe = OBJECTIVES[name]
    return vlmdsl.compile(recipe, compiled=False, **hyper_parameters_of(recipe)).double()


def longer(value: Tensor, dim: int) -> Tensor:
    """More of it in this dimension: no token, no id, nothing that is named, features that mean nothing, empty boxes."""
    shape = [*value.shape]
    shape[dim] = MORE
    return torch.cat([value, torch.full(shape, -1 if value.dtype is torch.int64 else 0, dtype=value.dtype)], dim=dim)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_padding_changes_no_term(name: str) -> None:
    objective = objective_of(name)
    features = example_features(objective)
    axes = [axis for axis in PADDED if any(axis in spec.axes for spec in objective.inputs.values())]
    if not axes:
        return
    expected = objective(modules=example_modules(objective), **features).terms
    for axis in axes:
        padded = {
            key: longer(features[key], spec.axes.index(axis)) if axis in spec.axes else features[key]
            for key, spec in objective.inputs.items()
        }
        other = objective_of(name)  # one that has no state of a step
        example_features(other)
        terms = other(modules=example_modules(other), **padded).terms
        for term, value in terms.items():
            torch.testing.assert_close(
                value, expected[term], rtol=1e-10, atol=1e-14, msg=lambda text, axis=axis: f"more {PADDED[axis]}: {text}"
            )


@pytest.mark.parametrize("name", sorted(OF_TOKENS))
def test_without_a_token_to_predict(name: str) -> None:
    check_nothing(name, OF_TOKENS[name], lambda key: key.endswith(("_targets", "_next", "_ids")), -100)


@pytest.mark.parametrize("name", sorted(OF_PATCHES))
def test_without_a_masked_patch(name: str) -> None:
    check_nothing(name, OF_PATCHES[name], lambda key: key.endswith(("_dropped", "_replaced")), False)


@pytest.mark.parametrize("name", sorted(OF_BOXES))
def test_without_a_box(name: str) -> None:
    check_nothing(name, OF_BOXES[name], lambda key: key == "boxes", 0.0)


def check_nothing(name: str, zeros: tuple[str, ...], chosen: Callable[[str], bool], fill: float) -> None:
    """The terms `zeros` are 0 without gradient where the chosen inputs are filled with this, and only these; the gradient of
    the whole loss is finite."""
    objective = objective_of(name)
    features = example_features(objective)
    assert any(map(chosen, features))
    features = {key: torch.full_like(value, fill) if chosen(key) else value for key, value in features.items()}
    out, learning = run(objective, features)
    assert {term for term, value in out.terms.items() if value == 0} == {*zeros}
    for value in (out.terms[term] for term in zeros if out.terms[term].requires_grad):
        gradients = torch.autograd.grad(value, learning, allow_unused=True, retain_graph=True)
        assert not any(gradient.any() for gradient in gradients if gradient is not None)
    assert_finite(out.loss, learning)


@pytest.mark.parametrize("name", ["ra_clip", "regionclip.regions"])
def test_examples_are_taken_beside_a_reference_set_of_less_precision(name: str) -> None:
    """Features are float64, and the set is float32 as long as the objective is."""
    wide = objective_of(name)
    expected, _ = run(wide, example_features(wide))
    objective = vlmdsl.compile(OBJECTIVES[name], compiled=False, **hyper_parameters_of(OBJECTIVES[name]))
    out, learning = run(objective, example_features(objective))
    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-6, atol=0, check_dtype=False)
    assert_finite(out.loss, learning)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_of_one(name: str) -> None:
    objective = objective_of(name)
    out, learning = run(objective, example_features(objective, batch=1))
    assert_finite(out.loss, learning)


def run(objective: Objective, features: dict[str, Tensor]) -> tuple[vlmdsl.ObjectiveOutput, list[Tensor]]:
    """The output, and all that it may have a gradient for."""
    modules = example_modules(objective)
    learning = [value.requires_grad_() for value in features.values() if value.is_floating_point() and value.dim()]
    learning += [weight for module in modules.values() for weight in module.parameters()]
    return objective(modules=modules, **features), [*learning, *objective.parameters()]


def assert_finite(loss: Tensor, learning: list[Tensor]) -> None:
    assert torch.isfinite(loss)
    if loss.requires_grad:
        for gradient in torch.autograd.grad(loss, learning, allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all()
