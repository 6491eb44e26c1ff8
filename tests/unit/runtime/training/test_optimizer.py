"""Which parameters decay, whose learning rate applies, and how it runs over the steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vlmdsl
from unit.runtime.training.tiny import TinyModel
from vlmdsl.backends.torch.shared_numbers import SharedNumbers
from vlmdsl.runtime.training.optimizer import build_optimizer, set_learning_rate
from vlmdsl.runtime.training.schedule import learning_rate_factor
from vlmdsl.schema import OptimizerConfig, ScheduleConfig


def test_matrices_decay_and_nothing_else_does() -> None:
    model = TinyModel()
    model.class_token = nn.Parameter(torch.zeros(1, 1, 8))
    model.kernel = nn.Conv2d(3, 4, 2)
    model.frozen = nn.Linear(2, 2).requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.3, learning_rate=1e-2, objective_learning_rate=1e-4))
    decayed, plain, objective = optimizer.param_groups
    assert sorted(decayed["param_names"]) == ["kernel.weight", "language.0.weight", "vision.2.weight"]
    biases = ["kernel.bias", "language.0.bias", "language.1.bias", "vision.2.bias"]
    assert sorted(plain["param_names"]) == [
        "class_token",
        "embedding.weight",
        *biases[:2],
        *biases[2:3],
        "language.1.weight",
        biases[3],
    ]
    assert objective["param_names"] == ["objective.log_scale"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0, 0]
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 5e-3, 5e-5]


def test_a_tied_weight_is_updated_once() -> None:
    model = TinyModel()
    model.also = model.embedding
    optimizer = build_optimizer(model, OptimizerConfig())
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert names.count("embedding.weight") == 1
    assert "also.weight" not in names


def test_the_schedule_of_a_small_run() -> None:
    schedule = ScheduleConfig(warmup_steps=4, final=0.1)
    factors = [learning_rate_factor(step, 9, schedule) for step in range(9)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447, 0.1], abs=1e-6)


@given(st.integers(1, 300), st.integers(0, 300), st.floats(0, 1))
def test_the_schedule_rises_then_falls_within_its_bounds(steps: int, warmup: int, final: float) -> None:
    schedule = ScheduleConfig(warmup_steps=warmup, final=final)
    factors = [learning_rate_factor(step, steps, schedule) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors[:warmup])
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert all(final - 1e-12 <= factor <= 1 for factor in factors[warmup:])
    if steps > warmup + 1:
        assert factors[-1] == pytest.approx(final)


@pytest.mark.parametrize(
    ("number", "share"),
    [
        ('learned(0.07, form="direct")', 0.07),
        ('learned(0.07, form="direct", lower=0.001, upper=0.5, clamp="hard")', 0.07),
        ("learned(0.07)", 1),
        ('learned(0.07, max_scale=100, clamp="hard")', 1),
        ('learned(3, form="direct")', 1),
    ],
)
def test_a_temperature_that_is_learned_itself_moves_by_a_share_of_its_start(number: str, share: float) -> None:
    model = nn.Module()
    model.objective = vlmdsl.compile(f"minimize contrast(image, text, temperature={number})", compiled=False)
    config = OptimizerConfig(objective_learning_rate=1e-2)
    (group,) = build_optimizer(model, config).param_groups
    assert group["peak"] == pytest.approx(share * 1e-2)


def test_numbers_that_are_shared_keep_their_rates() -> None:
    recipe = 'minimize contrast(image, text, temperature=learned(0.07, form="direct", name="tau"))'
    shared = SharedNumbers([vlmdsl.compile(recipe, compiled=False) for _ in range(2)])
    assert shared.rate("tau") == 0.07


@pytest.mark.parametrize(("start", "share"), [(0, 1), (-0.5, 0.5), (-10, 1)])
def test_a_bias_moves_by_a_share_of_a_small_start(start: float, share: float) -> None:
    objective = vlmdsl.compile(
        f'minimize sigmoid_contrast(image, text, bias=learned({start}, form="direct", name="bias"))', compiled=False
    )
    assert objective.rate("bias") == share
