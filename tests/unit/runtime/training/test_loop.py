"""The loop: it learns, it resumes bit for bit, it stops at what is not finite, and two processes are one."""

from __future__ import annotations

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
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World, join_processes, seed_generators
from vlmdsl.schema import RunConfig

Records = list[dict[str, float]]


def fresh(settings: RunConfig, **arguments: Any) -> tuple[TinyModel, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = TinyModel(**arguments)
    return model, build_optimizer(model, settings.optimizer)


def run(settings: RunConfig, model: TinyModel, optimizer: torch.optim.AdamW, start: int = 0, **others: Any) -> Records:
    records: Records = []
    world = World(0, 1, torch.device("cpu"))
    callbacks = Callbacks(log=records.append, **others)
    train_steps(model, optimizer, batches(settings.train.batch, start), settings, world, start=start, callbacks=callbacks)
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


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    settings = config()
    model, optimizer = fresh(settings, dropout=0.5)

    def save(step: int) -> None:
        save_checkpoint(tmp_path, model, optimizer, Position(step, 0, step, 0), keep=99)

    frequent = settings.model_copy(update={"train": settings.train.model_copy(update={"checkpoint_every": 1})})
    whole = run(frequent, model, optimizer, save=save)
    for start in (1, 6, 9):
        other, moments = fresh(settings, dropout=0.5)
        load_checkpoint(tmp_path / f"step-{start:08d}", other, moments)
        # What happened before in this process must not matter.
        torch.rand(start), random.random(), np.random.rand()
        assert run(settings, other, moments, start=start) == whole[start:]
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_dropout_draws_new_numbers_each_step_and_rank() -> None:
    draws = []
    for purpose in ((0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 0), (0, 1, 0)):
        seed_generators(*purpose)
        draws.append((float(torch.rand(())), random.random(), float(np.random.rand())))
    assert draws[0] == draws[4]
    assert len({value for draw in draws for value in draw}) == 12


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


def test_bfloat16_reaches_the_encoders() -> None:
    settings = config(train_steps=1, train_precision="bfloat16")
    model, optimizer = fresh(settings)
    seen: list[torch.dtype] = []
    model.vision[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run(settings, model, optimizer)
    assert seen == [torch.bfloat16]
    assert model.vision[-1].weight.dtype == torch.float32


def one_process(rank: int, size: int, folder: str) -> None:
    """Train in float64 as process `rank` of `size` and write what came out."""
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(f"{folder}/store", size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    settings = config(train_steps=5, optimizer_learning_rate=1e-2, train_term_gradients_every=2)
    torch.manual_seed(rank)
    model = TwoTerms().double()
    if rank:
        # Only the first process's weights may count.
        torch.nn.init.zeros_(model.embedding.weight)
    optimizer = build_optimizer(model, settings.optimizer)
    losses: list[float] = []
    norms: list[float] = []

    def log(record: dict[str, float]) -> None:
        losses.append(record["loss"])
        norms.extend(record[name] for name in ("contrast.gradient_norm", "scale.gradient_norm") if name in record)

    with join_processes("cpu") as world:
        callbacks = Callbacks(log=log)
        train_steps(model, optimizer, batches(8), settings, world, callbacks=callbacks)
    torch.save({"losses": losses, "norms": norms, "weights": model.state_dict()}, f"{folder}/{size}-{rank}.pt")
    if size > 1:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    one_process(0, 1, str(tmp_path))
    torch.multiprocessing.spawn(one_process, (2, str(tmp_path)), nprocs=2)
    alone, *together = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for result in together:
        assert result["losses"] == pytest.approx(alone["losses"], abs=1e-9)
        assert len(result["norms"]) == 4
        assert result["norms"] == pytest.approx(alone["norms"], abs=1e-9)
        for name, tensor in alone["weights"].items():
            torch.testing.assert_close(result["weights"][name], tensor, rtol=0, atol=1e-9)
