"""The loop: it learns, it resumes bit for bit, it stops at what is not finite, and two processes are one."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from unit.runtime.training.tiny import TinyModel, TwoTerms, batches, config
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.loss_scale import LossScale
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World, join_processes, seed_generators, seed_step
from vlmdsl.schema import RunConfig

Records = list[dict[str, float]]


def fresh(settings: RunConfig, **arguments: Any) -> tuple[TinyModel, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = TinyModel(**arguments)
    return model, build_optimizer(model, settings.optimizer)


def run(
    settings: RunConfig,
    model: TinyModel,
    optimizer: torch.optim.AdamW,
    start: int = 0,
    scale: LossScale | None = None,
    **others: Any,
) -> Records:
    records: Records = []
    world, data = World(0, 1, torch.device("cpu")), batches(settings.train.batch, start)
    callbacks = Callbacks(log=records.append, **others)
    train_steps(model, optimizer, data, settings, world, start=start, callbacks=callbacks, scale=scale)
    for record in records:
        assert all(record.pop(name) > 0 for name in SPEED)
    return records


def test_the_loss_falls_and_each_step_is_recorded() -> None:
    settings = config(train_steps=60, train_log_every=20, optimizer_learning_rate=1e-2)
    model, optimizer = fresh(settings)
    one = batches(8)
    batch = next(one)
    saved: list[int] = []
    evaluated: list[int] = []
    records: Records = []
    callbacks = Callbacks(log=records.append, save=saved.append, evaluate=evaluated.append)
    settings = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"every": 25})})
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"checkpoint_every": 50})})
    forever = iter(lambda: batch, None)
    train_steps(model, optimizer, forever, settings, World(0, 1, torch.device("cpu")), callbacks=callbacks)
    assert [record["step"] for record in records] == [1, 20, 40, 60]
    assert records[-1]["loss"] < 0.1 < 1 < records[0]["loss"]
    assert records[0].keys() == {
        "step", "loss", "terms/contrast", "temperature", "gradient_norm", "learning_rate", *SPEED
    }  # fmt: skip
    assert (saved, evaluated) == ([50, 60], [25, 50])
    assert int(model.objective.steps) == 60


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_run_is_the_same_bit_for_bit(precision: str, tmp_path: Path) -> None:
    settings = config(train_precision=precision)
    model, optimizer = fresh(settings, dropout=0.5)
    scale = LossScale(2.0**19) if precision == "float16" else LossScale()  # the first steps of float16 are skipped

    def save(step: int) -> None:
        save_checkpoint(tmp_path, model, optimizer, Position(step, 0, step, 0, scale=scale), keep=99)

    frequent = settings.model_copy(update={"train": settings.train.model_copy(update={"checkpoint_every": 1})})
    whole = run(frequent, model, optimizer, save=save, scale=scale)
    if precision == "float16":
        assert 1 < whole[-1]["skipped_steps"] < 9
    for start in (1, 6, 9):
        other, moments = fresh(settings, dropout=0.5)
        position = load_checkpoint(tmp_path / f"step-{start:08d}", other, moments)
        # What happened before in this process must not matter.
        torch.rand(start), random.random(), np.random.rand()
        resumed = run(settings, other, moments, start=start, scale=position.scale)
        assert str(resumed) == str(whole[start:])  # the norm of a skipped step is NaN
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_dropout_draws_new_numbers_each_step_and_rank() -> None:
    draws = []
    for purpose in ((0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 0), (0, 1, 0)):
        seed_step(*purpose)
        draws.append((float(torch.rand(())), random.random(), float(np.random.rand())))
    assert draws[0] == draws[4]
    assert len({value for draw in draws for value in draw}) == 12


@pytest.mark.parametrize("step", [0, 63, 64, 1000])
def test_a_step_is_seeded_as_any_other_purpose(step: int) -> None:
    """Whichever steps were seeded before it."""
    seed_step(3, step // 2, 1), seed_step(3, step, 1)
    of_step = torch.rand(()), random.random(), np.random.rand()
    seed_generators(3, step, 1)
    assert of_step == (torch.rand(()), random.random(), np.random.rand())


@pytest.mark.parametrize(("learning_rate", "what"), [(1e30, "the term `contrast`"), (None, "the gradient")])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(learning_rate: float | None, what: str) -> None:
    settings = config(optimizer_learning_rate=learning_rate or 1e-3, train_clip_gradient_norm=1e9)
    model, optimizer = fresh(settings)
    if learning_rate is None:
        model.embedding.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DiagnosticError) as caught:
        run(settings, model, optimizer)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "V0819"
    assert diagnostic.message.startswith(f"{what} is not finite at step ")
    if learning_rate is None:
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())


def test_gradients_are_scaled_down_to_the_largest_norm() -> None:
    settings = config(train_steps=1, train_clip_gradient_norm=1e-3)
    model, optimizer = fresh(settings)
    norms: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
    )
    (record,) = run(settings, model, optimizer)
    assert record["gradient_norm"] > 1e-2
    assert float(norms[0]) == pytest.approx(1e-3, rel=1e-3)


def test_gradient_norms_of_terms_are_measured_before_the_step() -> None:
    """The second term is 0.1 s^2 of the number s: its gradient is 0.2 s, of the value that the step began with."""
    settings = config(train_steps=4, train_log_every=3, train_term_gradients_every=2)
    torch.manual_seed(0)
    model = TwoTerms()
    scales: list[float] = []
    model.register_forward_pre_hook(lambda *_: scales.append(model.objective.log_scale.item()))
    records = run(settings, model, build_optimizer(model, settings.optimizer))
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    measured = [record["scale.gradient_norm"] for record in records if "scale.gradient_norm" in record]
    assert measured == pytest.approx([0.2 * scales[1], 0.2 * scales[-1]])
    assert all(record["contrast.gradient_norm"] > 0 for record in records[1::2])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_short_floats_reach_the_encoders(precision: str) -> None:
    settings = config(train_steps=1, train_precision=precision)
    model, optimizer = fresh(settings)
    seen: list[torch.dtype] = []
    model.vision[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run(settings, model, optimizer)
    assert seen == [getattr(torch, precision)]
    assert model.vision[-1].weight.dtype == torch.float32


def test_gradients_that_vanish_in_float16_are_kept_by_the_scale() -> None:
    """A loss of 2^-20 times the usual one: its gradients are below the least number of float16, 2^-24."""
    model, gradients = TinyModel(), []
    for precision in ("float32", "float16"):
        settings = config(train_steps=1, train_precision=precision, train_clip_gradient_norm=1e-9)
        model, optimizer = fresh(settings)
        model.register_forward_hook(lambda module, inputs, output: setattr(output, "loss", output.loss * 2.0**-20))
        (record,) = run(settings, model, optimizer)
        gradients.append(record["gradient_norm"])
    assert record["loss_scale"] == 2**16
    assert gradients[1] == pytest.approx(gradients[0], rel=0.02)


def test_a_step_whose_gradient_overflows_is_skipped_and_said() -> None:
    settings = config(train_steps=3, train_precision="float16")
    model, optimizer = fresh(settings)
    weights: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda *_: weights.append(model.embedding.weight.detach().clone()))
    model.embedding.weight.register_hook(lambda gradient: gradient * (float("inf") if len(weights) == 2 else 1.0))
    records = run(settings, model, optimizer, scale=LossScale(2.0**10))
    assert [(record["loss_scale"], record["skipped_steps"]) for record in records] == [(2**10, 0), (2**9, 1), (2**9, 1)]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert optimizer.state[model.embedding.weight]["step"] == 2
    assert int(model.objective.steps) == 3  # schedules of teachers count the steps of the run


def test_a_gradient_that_no_scale_helps_stops_the_run() -> None:
    settings = config(train_steps=30, train_precision="float16")
    model, optimizer = fresh(settings)
    model.embedding.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(DiagnosticError, match="the gradient is not finite at step 17"):
        run(settings, model, optimizer)


def test_the_scale_is_raised_after_steps_without_overflow() -> None:
    scale, loss = LossScale.of("float16"), torch.tensor(1.0)
    for _ in range(1999):
        assert scale.goes_on(loss, finite=True)
    assert scale.value == 2**16
    assert scale.goes_on(loss, finite=True)
    assert (scale.value, scale.steps) == (2**17, 0)
    assert not scale.goes_on(loss * float("nan"), finite=False)


def one_process(rank: int, size: int, folder: str) -> None:
    """Train in float64 as process `rank` of `size` and write what came out."""
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(f"{folder}/store", size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    settings = config(train_steps=5, optimizer_learning_rate=1e-2, train_term_gradients_every=2)
    scale = LossScale(2.0**16)  # in float64 it changes nothing but that an overflow is skipped
    torch.manual_seed(rank)
    model = TwoTerms().double()
    if rank:
        # Only the first process's weights may count.
        torch.nn.init.zeros_(model.embedding.weight)
    optimizer = build_optimizer(model, settings.optimizer)
    passes = itertools.count()
    if rank == size - 1:  # of several processes one alone meets the overflow
        model.vision[-1].weight.register_hook(lambda gradient: gradient * (float("inf") if next(passes) == 0 else 1.0))
    losses: list[float] = []
    norms: list[float] = []

    def log(record: dict[str, float]) -> None:
        losses.append(record["loss"])
        norms.extend(record[name] for name in ("contrast.gradient_norm", "scale.gradient_norm") if name in record)

    with join_processes("cpu") as world:
        callbacks = Callbacks(log=log)
        train_steps(model, optimizer, batches(8), settings, world, callbacks=callbacks, scale=scale)
    results = {"losses": losses, "norms": norms, "weights": model.state_dict(), "skipped": scale.skipped}
    torch.save(results, f"{folder}/{size}-{rank}.pt")
    if size > 1:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    one_process(0, 1, str(tmp_path))
    torch.multiprocessing.spawn(one_process, (2, str(tmp_path)), nprocs=2)
    alone, *together = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for result in together:
        assert result["skipped"] == alone["skipped"] == 1
        assert result["losses"] == pytest.approx(alone["losses"], abs=1e-9)
        assert len(result["norms"]) == 4
        assert result["norms"] == pytest.approx(alone["norms"], abs=1e-9)
        for name, tensor in alone["weights"].items():
            torch.testing.assert_close(result["weights"][name], tensor, rtol=0, atol=1e-9)
