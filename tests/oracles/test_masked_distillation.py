"""MaskCLIP: how its teacher moves is the one number that is given; the terms are those of the paper's equation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vlmdsl
from vlmdsl.ir import Teacher
from vlmdsl.runtime.model.teachers import momentum_at
from vlmdsl.testing import example_features, example_modules
from vlmdsl.testing.oracle import load_oracle

DATA = Path(__file__).parent / "data"


def test_the_teacher_of_tower_and_map_moves_as_theirs() -> None:
    oracle = load_oracle(DATA, "maskclip-ema")
    schedule = vlmdsl.compile("maskclip", compiled=False, momentum=oracle.hyperparameters["momentum"]).schedule
    (teacher,) = {use.follows for use in schedule.before}
    assert teacher == Teacher(0.999, "constant", "before")
    assert {call.use.module.family for call in schedule.calls if call.use.follows == teacher} == {"tower", "linear"}
    own = oracle.inputs["teacher"].clone().lerp_(oracle.inputs["student"], 1 - momentum_at(teacher, 0, 10))
    torch.testing.assert_close(own, oracle.outputs["teacher"], rtol=oracle.rtol, atol=1e-15)


def paper_terms(
    features: dict[str, Tensor], modules: dict[str, torch.nn.Module], temperatures: tuple[float, float] = (1, 1)
) -> dict[str, Tensor]:
    """The terms of the paper's equation, of the states and pooled features of towers; temperatures are those of the codes,
    the student's and the teacher's."""
    student, teacher = temperatures
    image, text = (functional.normalize(features[name], dim=1) for name in ("image", "text"))
    logits, pairs = image @ text.T / 0.07, torch.arange(len(image))
    decoded = modules["decoder"](features["image_drop_states"]).tokens
    soft = (modules["codes_teacher"](features["image_teacher_states"]) / teacher).softmax(dim=2).detach()
    at = features["image_drop_dropped"]
    states = modules["reader"](features["text_masked_states"], features["text_masked_mask"]).tokens
    targets = features["text_masked_reader_targets"]
    return {
        "pairs": functional.cross_entropy(logits, pairs) + functional.cross_entropy(logits.T, pairs),
        "patches": 0.05 * functional.cross_entropy(modules["codes"](decoded)[at] / student, soft[at]),
        "words": 0.05 * functional.cross_entropy(modules["vocabulary"](states)[targets >= 0], targets[targets >= 0]),
    }


@pytest.mark.parametrize(
    ("temperatures", "compiled"),
    [((1.0, 1.0), False), ((0.1, 0.04), False), pytest.param((1.0, 1.0), True, marks=pytest.mark.slow)],
    ids=["eager", "sharp", "compiled"],
)
def test_the_terms_and_their_gradients_are_those_of_the_equation(temperatures: tuple[float, float], compiled: bool) -> None:
    knobs = dict(zip(("code_temperature", "teacher_temperature"), temperatures, strict=True))
    objective = vlmdsl.compile("maskclip", compiled=compiled, **knobs).double()
    modules, features = example_modules(objective), example_features(objective)
    learning = {name: value.requires_grad_() for name, value in features.items() if value.is_floating_point()}
    weights = [weight for name, module in modules.items() if "teacher" not in name for weight in module.parameters()]
    out = objective(modules=modules, **features)
    expected = paper_terms(features, modules, temperatures)
    assert features["image_drop_dropped"].any()
    leaves = [*learning.values(), *weights]
    torch.testing.assert_close(dict(out.terms), expected, rtol=1e-6, atol=0)  # the temperature starts in float32
    gradients = (torch.autograd.grad(loss, leaves, allow_unused=True) for loss in (out.loss, sum(expected.values())))
    for own, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-12)


def test_without_a_dropped_patch_nothing_is_distilled() -> None:
    objective = vlmdsl.compile("maskclip", compiled=False).double()
    features = example_features(objective)
    features["image_drop_dropped"] = torch.zeros_like(features["image_drop_dropped"])
    features["image_drop_states"].requires_grad_()
    term = objective(modules=example_modules(objective), **features).terms["patches"]
    term.backward()
    assert term.item() == 0.0
    assert not features["image_drop_states"].grad.any()
