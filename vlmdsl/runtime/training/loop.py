"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from vlmdsl.backends.torch.cached import CachedStep
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import LossNotFinite
from vlmdsl.runtime.training.optimizer import set_learning_rate
from vlmdsl.runtime.training.processes import World, in_parallel, seed_generators
from vlmdsl.runtime.training.schedule import learning_rate_factor
from vlmdsl.runtime.values import Batch
from vlmdsl.schema import RunConfig
from vlmdsl.source import Span

__all__ = ["Callbacks", "TrainOutput", "train_steps"]


class TrainOutput(Protocol):
    """The output of the model for a batch."""

    loss: Tensor
    terms: dict[str, Tensor]
    metrics: dict[str, Tensor]


@dataclass
class Callbacks:
    """Callbacks of the loop; all are called after `step` steps are done."""

    log: Callable[[dict[str, float]], None] = lambda record: None
    save: Callable[[int], None] = lambda step: None
    evaluate: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False
    """Whether to stop; called on every process after each step, with the same result on all."""
    interrupted: Callable[[], bool] = lambda: False
    """Whether this process was asked to end."""


@dataclass
class _Clock:
    """Samples per second since the last reading, without the time of evaluations and checkpoints."""

    samples: int = 0
    since: float = field(default_factory=time.perf_counter)

    def read(self) -> float:
        now = time.perf_counter()
        rate = self.samples / max(now - self.since, 1e-9)
        self.samples, self.since = 0, now
        return rate

    @contextmanager
    def stopped(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start


def train_steps(
    model: nn.Module,
    optimizer: AdamW,
    batches: Iterator[Batch],
    config: RunConfig,
    world: World,
    *,
    start: int = 0,
    per_epoch: int = 0,
    callbacks: Callbacks | None = None,
) -> int:
    """Train `model` from step `start` to `config.train.steps`, or until `callbacks.stop`; returns the number of steps done.

    Where it stops early, the checkpoint of its last step is saved. `model(batch)` gives a `TrainOutput`;
    `model.after_step()` is called after every optimiser step, and then `model.after_epoch()` after every `per_epoch` of them
    (0: never). `batches` yields this process's share of each step's batch, from step `start` on. Raises `DiagnosticError`
    (V0819) where the loss or a gradient is not finite, before the optimiser uses it.
    """
    callbacks = callbacks or Callbacks()
    train = config.train
    parallel = _Stepper(model, train.micro)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    clock = _Clock()
    for step in range(start, train.steps):
        try:
            batch = next(batches).to(world.device, non_blocking=True)
        except (RuntimeError, DiagnosticError):
            # The signal that asks this process to end may have ended the processes that load its samples.
            if world.size == 1 and step > start and callbacks.interrupted():
                callbacks.save(step)
                return step
            raise
        done = step + 1
        seed_generators(train.seed, step, world.rank)
        factor = learning_rate_factor(step, train.steps, config.schedule)
        set_learning_rate(optimizer, factor)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            output = parallel(batch)
        parallel.backward(output.loss)
        norm = clip_grad_norm_(parameters, train.clip_gradient_norm or float("inf"))
        if not bool(torch.isfinite(output.loss.detach() + norm)):
            raise DiagnosticError((_not_finite(output, done),))
        _update(model, optimizer, epoch_ends=per_epoch > 0 and done % per_epoch == 0)
        clock.samples += train.batch
        if done % train.log_every == 0 or done in (1, train.steps):
            rate = config.optimizer.learning_rate * factor
            more = {"gradient_norm": norm.item(), "learning_rate": rate, "samples_per_second": clock.read()}
            callbacks.log({**_record(output, done), **more})
        with clock.stopped():
            if done % train.checkpoint_every == 0 or done == train.steps:
                callbacks.save(done)
            if config.evaluation.every and done % config.evaluation.every == 0 and done < train.steps:
                callbacks.evaluate(done)
                model.train()
            if callbacks.stop():
                callbacks.save(done)
                return done
    return max(start, train.steps)


def _update(model: nn.Module, optimizer: AdamW, *, epoch_ends: bool) -> None:
    """The optimiser's step, and what follows it."""
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    model.after_step()  # type: ignore[operator]
    if epoch_ends:
        model.after_epoch()  # type: ignore[operator]


class _Stepper:
    """The two halves of a training step: all of the batch at once, or its towers in chunks of `micro` samples."""

    def __init__(self, model: nn.Module, micro: int | None) -> None:
        self._cached = None if micro is None else CachedStep(model, micro)  # type: ignore[arg-type]
        self._forward: Callable[[Batch], Any] = self._cached or in_parallel(model)

    def __call__(self, batch: Batch) -> TrainOutput:
        output: TrainOutput = self._forward(batch)
        return output

    def backward(self, loss: Tensor) -> None:
        if self._cached is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._cached.backward(loss)


def _record(output: TrainOutput, step: int) -> dict[str, Any]:
    terms = {f"terms/{name}": value.item() for name, value in output.terms.items()}
    metrics = {name: value.item() for name, value in output.metrics.items()}
    return {"step": step, "loss": output.loss.item(), **terms, **metrics}


def _not_finite(output: TrainOutput, step: int) -> Diagnostic:
    wrong = [name for name, value in output.terms.items() if not bool(torch.isfinite(value).all())]
    what = f"the term `{wrong[0]}`" if wrong else "the loss" if not bool(torch.isfinite(output.loss)) else "the gradient"
    numbers = [*output.terms.items(), *output.metrics.items()]
    notes = tuple(f"{name} is {value.item():g}" for name, value in numbers)
    return LossNotFinite.at(Span("training", 0, 0), what=what, step=step, notes=notes, help=("`vlmdsl explain V0819`",))
