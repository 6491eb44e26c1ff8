"""Numbers that come from outside: one per step, where a field of the type Number is one per sample."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from unit.frontend.test_meaning import planned
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import inputs
from vlmdsl.runtime.data.mapping import requirements

RECIPE = "recipe scaled(image: Image, text: Text, scale: Scalar)\nminimize contrast(image, text, temperature=1 / scale)\n"


def test_it_is_an_input_without_axes_and_a_field_of_the_signature() -> None:
    program = planned(RECIPE)
    (scale,) = (port for port in inputs(program) if port.name == "scale")
    assert (scale.axes, scale.dtype) == ((), "float")
    assert [(name, str(kind)) for name, kind in program.fields] == [
        ("image", "Image"), ("text", "Text"), ("scale", "Scalar"),
    ]  # fmt: skip


def test_no_data_holds_it() -> None:
    program = planned(RECIPE)
    with pytest.raises(DiagnosticError, match=r"V0823.*`scale`"):
        requirements(program)
    assert {need.field for need in requirements(program, views=False)} == {"image", "text"}


def test_one_number_per_sample_is_not_a_temperature_and_the_message_says_what_is() -> None:
    (fault, *_) = vlmdsl.check(RECIPE.replace("Scalar", "Number"))
    assert fault.code == "V0302"
    assert "`scale: Scalar`" in fault.help[0]


def test_an_unused_one_is_reported_like_any_field() -> None:
    unused = "recipe mine(image: Image, text: Text, scale: Scalar)\nminimize contrast(image, text)\n"
    assert [fault.code for fault in vlmdsl.check(unused)] == ["V0503"]


def test_a_recipe_that_is_used_takes_a_constant_a_learned_number_or_ones_own() -> None:
    for temperature in ("14.3", "1 / learned(0.07)", "mine"):
        text = (
            "recipe outer(image: Image, text: Text, mine: Scalar)\n"
            "def clip_of(a, b, scale: Scalar) = contrast(a, b, temperature=1 / scale)\n"
            f"minimize clip_of(image, text, {temperature}) + contrast(image, text, temperature=mine)\n"
        )
        assert vlmdsl.check(text) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [(14.3, "must be a tensor"), (torch.ones(1), r"must have the axes \[\]"), (torch.tensor(3), "must be float")],
)
def test_what_does_not_fit_is_named(value: object, message: str) -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    with pytest.raises((TypeError, ValueError), match=f"scale {message}"):
        objective(image=torch.randn(4, 3), text=torch.randn(4, 3), scale=value)


def test_its_gradient_has_its_own_precision() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        image, text = (torch.randn(4, 3, dtype=dtype, requires_grad=True) for _ in range(2))
        scale = torch.tensor(10.0, requires_grad=True)
        objective(image=image, text=text, scale=scale).loss.backward()
        assert scale.grad is not None
        assert scale.grad.dtype == scale.dtype


@pytest.mark.parametrize(
    ("kind", "use"),
    [
        ("Flag", "keep=v"),
        ("Label", "targets=same(v)"),
        ("Number", "weight=v"),
        ("Scalar", "temperature=v"),
        ("Key", "weight=1"),
    ],
)
def test_only_images_and_texts_come_several_under_one_name(kind: str, use: str) -> None:
    text = f"recipe mine(image: Image, text: Text, v: {kind}[3])\nminimize contrast(image, text, {use})\n"
    faults = [fault.message for fault in vlmdsl.check(text) if fault.severity == "error"]
    assert faults == [f"there is no type `{kind}[3]`"]
