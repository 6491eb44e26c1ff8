"""Schedules are functions of the step: linear or in a cosine, over a share of the run, steps or epochs."""

from __future__ import annotations

import math

import pytest
import torch

import vlmdsl
from vlmdsl.ir import ramp_at
from vlmdsl.ir.ramps import Duration, Ramp
from vlmdsl.testing.laws import example_features

NOTHING = Duration(0.0, "share")


def linear(over: Duration, after: Duration = NOTHING) -> Ramp:
    return Ramp("linear", 2.0, 4.0, over, after)


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        (linear(Duration(1.0, "share")), {0: 2.0, 25: 2.5, 99: 3.98, 100: 4.0, 150: 4.0}),
        (linear(Duration(10, "steps")), {0: 2.0, 5: 3.0, 10: 4.0, 11: 4.0}),
        (linear(Duration(2, "epochs")), {0: 2.0, 10: 3.0, 20: 4.0}),
        (linear(Duration(0.5, "share"), Duration(20, "steps")), {0: 2.0, 20: 2.0, 45: 3.0, 70: 4.0}),
        (linear(NOTHING, Duration(3, "epochs")), {29: 2.0, 30: 4.0}),
        (Ramp("cosine", 0.99, 1.0, Duration(1.0, "share"), NOTHING), {0: 0.99, 50: 0.995, 100: 1.0}),
    ],
)
def test_a_ramp_is_a_function_of_the_step(ramp: Ramp, expected: dict[int, float]) -> None:
    assert {step: ramp_at(ramp, step, steps=100, per_epoch=10) for step in expected} == pytest.approx(expected, abs=1e-12)


def test_a_cosine_is_that_of_a_teacher_s_momentum() -> None:
    """MoCo v3 and BYOL: 1 - (1 - m) (1 + cos(pi n / N)) / 2."""
    ramp = Ramp("cosine", 0.99, 1.0, Duration(1.0, "share"), NOTHING)
    for step in range(0, 100, 7):
        expected = 1.0 - 0.01 * (1.0 + math.cos(math.pi * step / 100)) / 2.0
        assert ramp_at(ramp, step, steps=100, per_epoch=0) == pytest.approx(expected, abs=1e-15)


RECIPE = """
let alpha = ramp(0, 0.4, over=1 epochs)
let tau = cosine_ramp(0.2, 0.1, over=50%)
minimize alpha * contrast(image, text, temperature=tau) + (1 - alpha) * contrast(image, text, temperature=1)
"""


def test_a_recipe_reads_what_the_loop_passes() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False).double()
    assert [objective.inputs[name].axes for name in ("alpha", "tau")] == [(), ()]
    features = {name: value for name, value in example_features(objective).items() if value.dim()}
    numbers = objective.ramps(5, steps=40, per_epoch=10)
    assert numbers["alpha"].item() == pytest.approx(0.2)
    assert numbers["tau"].item() == pytest.approx(0.2 - 0.1 * (1 - math.cos(math.pi / 4)) / 2)
    out = objective(**features, **numbers)

    def contrast(temperature: float) -> torch.Tensor:
        return vlmdsl.compile(f"contrast(image, text, temperature={temperature})", compiled=False).double()(**features).loss

    expected = 0.2 * contrast(numbers["tau"].item()) + 0.8 * contrast(1.0)
    torch.testing.assert_close(out.loss, expected, rtol=1e-6, atol=0)
    assert out.metrics["alpha"] == numbers["alpha"]


def test_what_a_schedule_must_know_is_asked_for() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    with pytest.raises(ValueError, match="alpha follows the run: pass `per_epoch`"):
        objective.ramps(0, steps=10)
    with pytest.raises(ValueError, match="tau follows the run: pass `steps`"):
        objective.ramps(0, per_epoch=10)


@pytest.mark.parametrize(
    ("schedule", "code"),
    [
        ("ramp(0, 1, over=110%)", "V0405"),
        ("ramp(0, 1, after=-1)", "V0405"),
        ("ramp(0, 1, over=2 epochs + 1 epochs)", "V0412"),
        ("ramp(0 steps, 1)", "V0412"),
        ("ramp(0, 1, over=image)", "V0301"),
        ("ramp(0)", "V0402"),
    ],
)
def test_an_invalid_schedule_is_a_diagnostic(schedule: str, code: str) -> None:
    codes = [each.code for each in vlmdsl.check(f"{schedule} * contrast(image, text)")]
    assert codes[:1] == [code]


def test_a_temperature_that_ends_at_zero_is_one() -> None:
    assert [each.code for each in vlmdsl.check("contrast(image, text, temperature=ramp(0.1, 0))")] == ["V0413"]
