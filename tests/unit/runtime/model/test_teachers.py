"""Teachers: they start alike, move when and as far as stated, take no gradient, and come back with a checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vlmdsl
from batches import batch_of
from oracles.cases import DATA
from vlmdsl.api.driver import build
from vlmdsl.backends.latex import formula_text
from vlmdsl.ir import Teacher
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.model.teachers import momentum_at
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.values import Batch, ImageBatch, TextBatch
from vlmdsl.schema import OptimizerConfig

RECIPE = """
recipe taught(image: Image, size = 12)
encoder teacher = ema(vision, momentum={momentum}, order="{order}", schedule="{schedule}")
let views = augment(image, n=2)
let key = teacher(views[1])
minimize memory_contrast(views[0], key, queue(key, size=size, name="keys"), temperature=learned(0.2))
"""


def model(order: str = "before", schedule: str = "constant", momentum: float = 0.75, steps: int = 4) -> VisionLanguageModel:
    torch.manual_seed(0)
    tower = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, ("pooled",))
    recipe = RECIPE.format(momentum=momentum, order=order, schedule=schedule)
    return VisionLanguageModel({"vision": tower}, vlmdsl.compile(recipe, compiled=False), steps=steps)


def batch(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    names = ("image_augment_crop_0", "image_augment_crop_1")
    return batch_of({name: ImageBatch(torch.rand(4, 3, 8, 8, generator=generator)) for name in names}, "abcd")


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def optimizer_of(built: VisionLanguageModel) -> torch.optim.AdamW:
    return build_optimizer(built, OptimizerConfig(learning_rate=1e-2))


def train(built: VisionLanguageModel, optimizer: torch.optim.AdamW, first: int, last: int) -> list[float]:
    losses = []
    for number in range(first, last):
        out = built(batch(number))
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        built.after_step()
        losses.append(out.loss.item())
    return losses


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_teacher_moves_when_it_is_said_to(order: str) -> None:
    built = model(order)
    assert built.teachers is not None
    teacher, tower = built.teachers.copies["vision"], built.encoders["vision"]
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(1.0)
    start, ahead = weights(teacher), weights(tower)
    moved = 0.75 * start + 0.25 * ahead
    built(batch(0))
    torch.testing.assert_close(weights(teacher), moved if order == "before" else start)
    built.after_step()
    torch.testing.assert_close(weights(teacher), moved)
    built.eval()(batch(1))
    torch.testing.assert_close(weights(teacher), moved)


def test_only_the_tower_is_trained_and_keys_are_the_teachers() -> None:
    built = model(momentum=1.0)
    assert built.teachers is not None
    trained = {name for group in optimizer_of(built).param_groups for name in group["param_names"]}
    assert trained
    assert not any("teachers" in name for name in trained)
    before = copy.deepcopy(built.teachers.copies["vision"])
    train(built, optimizer_of(built), 0, 2)
    keys = before(*batch(0).values["image_augment_crop_1"]).pooled
    expected = nn.functional.normalize(keys, dim=-1)
    torch.testing.assert_close(built.objective.state.get_buffer("keys")[:4], expected)


def test_a_resumed_run_with_teachers_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole_model = model(schedule="cosine", order="after")
    whole = train(whole_model, optimizer_of(whole_model), 0, 4)
    half = model(schedule="cosine", order="after")
    optimizer = optimizer_of(half)
    losses = train(half, optimizer, 0, 2)
    folder = save_checkpoint(tmp_path, half, optimizer, Position(2, 0, 2, seed=0))
    resumed = model(schedule="cosine", order="after")
    fresh = optimizer_of(resumed)
    load_checkpoint(folder, resumed, fresh)
    assert losses + train(resumed, fresh, 2, 4) == whole
    assert all(torch.equal(value, whole_model.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_a_tower_and_its_teacher_share_the_values_of_a_batch() -> None:
    terms = "contrast(image, text) + contrast(image, old(image))"
    recipe = f"recipe r(image: Image, text: Text)\nencoder old = ema(vision)\nminimize {terms}"
    objective = vlmdsl.compile(recipe, compiled=False)
    assert [stream.name for stream in objective.streams] == ["image", "text", "image_teacher"]
    tower = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, ("pooled",))
    words = TextTransformer(TextConfig(width=16, depth=1, heads=2, vocabulary_size=30, text_length=9), 8, ("pooled",))
    built = VisionLanguageModel({"vision": tower, "language": words}, objective)
    assert [stream.name for stream in built.readings] == ["image", "text"]
    texts = TextBatch(torch.ones(4, 5, dtype=torch.int64), torch.ones(4, 5, dtype=torch.bool))
    out = built(batch_of({"image": ImageBatch(torch.rand(4, 3, 8, 8)), "text": texts}, "abcd"))
    assert torch.isfinite(out.loss)


@pytest.mark.parametrize(
    ("oracle", "axis", "total", "start", "out"),
    [("moco_v3-momentum_schedule", "epoch", 300, 0.99, "out_m"), ("byol-schedules", "step", 1000, 0.996, "out_ema")],
)
def test_schedules_of_the_authors(oracle: str, axis: str, total: int, start: float, out: str) -> None:
    with np.load(DATA / f"{oracle}.npz") as arrays:
        momenta = [momentum_at(Teacher(start, "cosine", "before"), done, total) for done in arrays[axis]]
        np.testing.assert_allclose(momenta, arrays[out], rtol=1e-6)
    assert math.isclose(momentum_at(Teacher(start, "constant", "before"), 7, total), start)


FORMULAS: dict[str, Callable[[int], float]] = {
    "constant": lambda done: 0.3,
    "warm_up": lambda done: min(0.3, (2 + done) / (11 + done)),
    "cosine": lambda done: 1 - (1 - 0.3) * (1 + math.cos(math.pi * done / 4)) / 2,
}
"""Momentum 0.3 in a run of four steps; the warm-up reaches it at its third."""


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("schedule", FORMULAS)
def test_the_momentum_of_each_step_is_that_of_the_formula(schedule: str, order: str) -> None:
    built = model(order, schedule, momentum=0.3)
    assert built.teachers is not None
    teacher, tower = built.teachers.copies["vision"], built.encoders["vision"]
    optimizer, expected = optimizer_of(built), weights(teacher)
    for done in range(4):
        before = weights(tower)
        train(built, optimizer, done, done + 1)
        followed = before if order == "before" else weights(tower)
        share = FORMULAS[schedule](done)
        expected = share * expected + (1 - share) * followed
        torch.testing.assert_close(weights(teacher), expected, rtol=1e-5, atol=1e-7)
    assert (weights(teacher) - weights(tower)).abs().max() > 1e-4
    assert [FORMULAS["warm_up"](done) for done in (0, 2)] == [2 / 11, 0.3]


def test_a_schedule_wants_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match="how many `steps`"):
        model(schedule="cosine", steps=0)


def test_a_momentum_may_be_a_schedule() -> None:
    recipe = (
        "recipe r(image: Image, text: Text)\nencoder elder = ema(language, momentum=cosine_ramp(0.9, 1, over=10 steps))\n"
    )
    recipe += "minimize contrast(image, elder(text))"
    objective = vlmdsl.compile(recipe, compiled=False)
    (teacher,) = {stream.encoder.teacher for stream in objective.streams} - {None}
    assert "momentum" not in objective.inputs  # the teacher follows it, the objective does not read it
    for done in (0, 5, 10, 20):
        expected = 1.0 - 0.1 * (1.0 + math.cos(math.pi * min(done / 10, 1.0))) / 2.0
        assert math.isclose(momentum_at(teacher, done, steps=0), expected, abs_tol=1e-15)
    assert "momentum from 0.9 to 1 in a cosine over 10 steps" in formula_text(build(recipe).written)


@pytest.mark.parametrize(
    "momentum", ["1.5", "ramp(0, 2)", "ramp(0.9, 1, over=2 epochs)", 'ramp(0.9, 1), schedule="cosine"', "learned(0.5)"]
)
def test_a_momentum_that_is_not_a_share_is_a_diagnostic(momentum: str) -> None:
    recipe = f"recipe r(image: Image, text: Text)\nencoder elder = ema(language, momentum={momentum})\n"
    assert [each.code for each in vlmdsl.check(recipe + "minimize contrast(image, elder(text))")] == ["V0405"]
