"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from vlmdsl.backends.torch.cached import CachedStep
from vlmdsl.backends.torch.collectives import average_gradients
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.training.idle import IdleTerms, counted_of
from vlmdsl.runtime.training.loss_scale import LossScale
from vlmdsl.runtime.training.not_finite import evidence, not_finite
from vlmdsl.runtime.training.optimizer import set_learning_rate
from vlmdsl.runtime.training.processes import World, in_parallel, seed_step
from vlmdsl.runtime.training.schedule import learning_rate_factor
from vlmdsl.runtime.training.term_gradients import term_gradient_norms
from vlmdsl.runtime.values import Batch
from vlmdsl.schema import RunConfig, TrainConfig

__all__ = ["Callbacks", "TrainOutput", "train_steps"]


class TrainOutput(Protocol):
    """The output of the model for a batch."""

    loss: Tensor
    terms: dict[str, Tensor]
    metrics: dict[str, Tensor]


@dataclass
class Callbacks:
    """Callbacks of the loop; all are called after `step` steps are done."""

    log: Callable[[dict[str, Any]], None] = lambda record: None
    idle: Callable[[str, list[str]], None] = lambda flow, terms: None
    """Called after each step with the terms of its flow that have been 0 for `idle.STEPS` steps now; each comes once."""
    save: Callable[[int], None] = lambda step: None
    evaluate: Callable[[int], None] = lambda step: None
    not_finite: Callable[[dict[str, Any]], Path | None] = lambda facts: None
    """Called on every process with the facts about a step whose loss or gradient is not finite; returns the file that they
    were written to."""
    stop: Callable[[], bool] = lambda: False
    """Whether to stop; called on every process after each step, with the same result on all."""
    interrupted: Callable[[], bool] = lambda: False
    """Whether this process was asked to end."""


@dataclass
class _Clock:
    """The speed since the last reading, without the time of evaluations and checkpoints."""

    samples: int = 0
    steps: int = 0
    waited: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def read(self) -> dict[str, float]:
        """Samples per second, and of a step the seconds, and those in which it waited for its batch."""
        now, steps = time.perf_counter(), max(self.steps, 1)
        seconds = max(now - self.since, 1e-9)
        speed = dict(zip(SPEED, (self.samples / seconds, seconds / steps, self.waited / steps), strict=True))
        self.samples, self.steps, self.waited, self.since = 0, 0, 0.0, now
        return speed

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start

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
    before: int = 0,
    callbacks: Callbacks | None = None,
    scale: LossScale | None = None,
) -> int:
    """Train `model` from step `start` to `config.train.steps`, or until `callbacks.stop`; returns the number of steps done.

    A stage of a run has steps of its own, and `before` it are those of earlier stages: what is logged, saved and drawn
    counts these too, and so does the number that is returned. Where it stops early, the checkpoint of its last step is
    saved. `model(batch)` gives a `TrainOutput`; `model.after_step()` is called after every optimiser step, and then
    `model.after_epoch()` after every `per_epoch` of the stage (0: where a batch says that it ends an epoch). `batches`
    yields this process's share of each step's batch, from step `start` on. With `train.parallel=sharded` on several
    processes `model` is that of `Sharded`. Raises `DiagnosticError` (V0819) where the loss or a gradient is not finite,
    before the optimiser uses it. With `train.precision=float16` the loss is scaled by `scale`, whose numbers change with the
    steps, and a step whose gradient overflows is skipped: the optimiser does not take it.
    """
    callbacks, train = callbacks or Callbacks(), config.train
    scale = scale or LossScale.of(train.precision)
    parallel = _Stepper(model, train, world, scale)
    clock, watch = _Clock(), IdleTerms()
    model.train()
    for own_step in range(start, train.steps):
        step = before + own_step
        batch = _next(batches, callbacks.interrupted if world.size == 1 and own_step > start else _never, clock)
        if batch is None:
            callbacks.save(step)
            return step
        batch, done = batch.to(world.device, non_blocking=True), step + 1
        set_learning_rate(optimizer, factor := learning_rate_factor(own_step, train.steps, config.schedule))
        with clock.stopped():
            norms = parallel.term_norms(batch, step)
        output = parallel(batch, step)
        norm = parallel.backward(output.loss)
        finite = math.isfinite((output.loss.detach() + norm).item())
        if not scale.goes_on(output.loss, finite=finite):
            facts = evidence(model, batch, output, norm, step=done, seed=train.seed)
            raise not_finite(output, done, callbacks.not_finite(facts))
        callbacks.idle(batch.flow, watch.after(batch.flow, output.terms | counted_of(output.metrics)))
        epoch_ends = batch.ends_epoch or (per_epoch > 0 and (own_step + 1) % per_epoch == 0)
        _update(model, optimizer, batch.flow, skipped=not finite, epoch_ends=epoch_ends)
        clock.samples, clock.steps = clock.samples + train.batch, clock.steps + 1
        last = own_step + 1 == train.steps
        if done % train.log_every == 0 or own_step == 0 or last or norms:
            more = {"gradient_norm": norm.item(), "learning_rate": config.optimizer.learning_rate * factor}
            more |= {"loss_scale": scale.value, "skipped_steps": scale.skipped} if train.precision == "float16" else {}
            callbacks.log(_record(output, done, batch.flow, norms) | more | clock.read())
        with clock.stopped():
            if _ends_after(done, model, config, callbacks, last=last):
                return done
    return before + max(start, train.steps)


def _never() -> bool:
    return False


def _next(batches: Iterator[Batch], interrupted: Callable[[], bool], clock: _Clock) -> Batch | None:
    """The batch that comes next, whose time is waited. None where it cannot be loaded because this process is to end: the
    signal that asks it to may have ended the processes that load its samples."""
    try:
        with clock.waiting():
            return next(batches)
    except (RuntimeError, DiagnosticError):
        if interrupted():
            return None
        raise


def _update(model: nn.Module, optimizer: AdamW, flow: str, *, skipped: bool, epoch_ends: bool) -> None:
    """The optimiser's step, unless it is skipped, and what follows it."""
    if not skipped:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # of the model it would walk through all modules, which takes longer
    model.after_step()  # type: ignore[operator]
    if epoch_ends:
        (model.models[flow] if isinstance(model, FlowModels) else model).after_epoch()  # type: ignore[operator]


def _ends_after(done: int, model: nn.Module, config: RunConfig, callbacks: Callbacks, *, last: bool) -> bool:
    """Save and evaluate where it is due after `done` steps; whether the run is asked to stop, and saved."""
    if done % config.train.checkpoint_every == 0 or last:
        callbacks.save(done)
    if config.evaluation.every and done % config.evaluation.every == 0 and not last:
        callbacks.evaluate(done)
        model.train()
    if stopped := callbacks.stop():
        callbacks.save(done)
    return stopped


class _Stepper:
    """The two halves of a training step, after `step` others: all of the batch at once, or its towers in chunks of
    `train.micro` samples."""

    def __init__(self, model: nn.Module, train: TrainConfig, world: World, scale: LossScale) -> None:
        self._train, self._world, self._scale = train, world, scale
        self._flows: dict[str, Any] = dict(model.models) if isinstance(model, FlowModels) else {"": model}
        self._cached = (
            {} if train.micro is None else {name: CachedStep(own, train.micro) for name, own in self._flows.items()}
        )
        self._sharded = train.parallel == "sharded" and world.size > 1
        one_by_one = bool(self._cached) or self._sharded
        in_part = isinstance(model, FlowModels) or (isinstance(model, VisionLanguageModel) and model.trained_in_part)
        self._model = model if one_by_one else in_parallel(model, parts_of_it=in_part)
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._backward: Callable[[Tensor], object] = Tensor.backward

    def __call__(self, batch: Batch, step: int) -> TrainOutput:
        cached = self._cached.get(batch.flow)
        self._backward = Tensor.backward if cached is None else cached.backward
        return self._forward(self._model if cached is None else cached, batch, step)

    def backward(self, loss: Tensor) -> Tensor:
        """Compute the gradients and clip them; returns their norm before."""
        self._backward(self._scale.up(loss))
        longest = self._train.clip_gradient_norm or float("inf")
        if self._sharded:
            average_gradients(() if self._cached else self._weights)  # of what no unit holds; `CachedStep` has done it
            self._scale.down(self._weights)
            norm: Tensor = import_module("vlmdsl.runtime.training.sharding").clip_gradients(self._weights, longest)
            return norm
        self._scale.down(self._weights)
        return clip_grad_norm_(self._weights, longest)

    def term_norms(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The gradient norm of each term of a step that is still to be taken; only of every
        `train.term_gradients_every`-th."""
        every = self._train.term_gradients_every
        if not every or (step + 1) % every:
            return {}
        model, cached = self._flows[batch.flow], self._cached.get(batch.flow)
        forward = partial(self._forward, model if cached is None else cached, batch, step)
        backward: Callable[[Tensor], object] | None = None if cached is None else cached.backward
        norm_of = None
        if self._sharded:
            backward = backward or self._backward_of_term
            norm_of = import_module("vlmdsl.runtime.training.sharding").gradient_norm
        return term_gradient_norms(model, forward, backward, scale=self._scale.value, norm_of=norm_of)

    def _backward_of_term(self, term: Tensor) -> None:
        """Gradients of sharded weights, which their modules reduce, and the mean of those that no module holds."""
        if term.requires_grad:
            term.backward()
        average_gradients(self._weights)

    def _forward(self, model: Callable[[Batch], Any], batch: Batch, step: int) -> TrainOutput:
        seed_step(self._train.seed, step, self._world.rank)
        device, precision = self._world.device.type, self._train.precision
        dtype = torch.float16 if precision == "float16" else torch.bfloat16
        with nullcontext() if precision == "float32" else torch.autocast(device, dtype):
            output: TrainOutput = model(batch)
        return output


def _record(output: TrainOutput, step: int, flow: str, norms: Mapping[str, Tensor]) -> dict[str, Any]:
    """What is logged of a step; `norms` are those of the gradients of its terms, if they were measured. Of one of several
    flows the terms and their measures begin with its name."""
    prefix = f"{flow}." if flow else ""
    terms = {f"terms/{prefix}{name}": value.item() for name, value in output.terms.items()}
    of_terms = tuple(f"{name}." for name in output.terms)
    metrics = {
        f"{prefix}{name}" if name.startswith(of_terms) else name: value.item() for name, value in output.metrics.items()
    }
    metrics |= {f"{prefix}{name}.gradient_norm": norm.item() for name, norm in norms.items()}
    return {"step": step, **({"flow": flow} if flow else {}), "loss": output.loss.item(), **terms, **metrics}
