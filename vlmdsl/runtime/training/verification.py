"""The first steps of a run in float64, with everything they leave: to compare runs that must be the same.

The same batch on one process, split among several, or in micro-batches must leave the same losses, gradients, weights and
state. In float64 the order of sums costs a few units in the fifteenth digit, so that a wrong gradient cannot hide in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.training.course import DataFacts, Model, StageOfRun, open_course, tokenizers_of_course
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.values import Batch, map_tensors
from vlmdsl.schema import RunConfig

__all__ = ["Traces", "first_steps", "in_float64", "relative_difference", "trace"]

Traces = dict[str, dict[str, dict[str, Tensor]]]
"""Stage -> kind (`losses`, `gradients`, `weights`, `state`) -> name -> values."""

_SMALLEST = 1e-3
"""Values below it are compared by absolute differences: gradients that are 0 come out as rounding errors."""
_STEPS = 2
"""The second step shows what the first one did to weights, teachers and queues."""
_LONGEST = 64
"""Steps after which flows that have not come up are left out."""


def first_steps(course: Sequence[StageOfRun], world: World) -> Traces:
    """Train every stage for two steps, of several flows until each has run twice, and return what they leave.

    Every stage starts from new weights, so that none depends on another. Raises `DiagnosticError` as training does.
    """
    course = [_shortened(stage) for stage in course]
    opened = open_course(course)
    tokenizers = tokenizers_of_course(course, opened)
    traces: Traces = {}
    for stage in course:
        data = opened.stages[stage.name]
        model = stage.build(tokenizers, world, DataFacts.of(data))
        stage.prepare(data, model)
        batches = stage.batches(data, model.double(), world)
        traces[stage.name] = trace(model, batches, stage.config, world)
    return traces


def trace(model: Model, batches: Iterable[Batch], config: RunConfig, world: World) -> dict[str, dict[str, Tensor]]:
    """Train a model in float64 for `config.train.steps` steps, each the end of an epoch, and return what they leave.

    `gradients` are the moments of the optimiser, which are made of every gradient so far.
    """
    optimizer, kept = build_optimizer(model, config.optimizer), _Losses()
    train_steps(
        model, optimizer, in_float64(batches), config, world, per_epoch=1, callbacks=Callbacks(log=kept.add)
    )  # fmt: skip
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments = {
        f"{names[id(parameter)]} ({kind})": value
        for parameter, own in optimizer.state.items()
        for kind, value in own.items()
    }
    state = model.state_dict()
    return {
        "losses": {name: torch.stack(values) for name, values in kept.values.items()},
        "gradients": moments,
        "weights": {name: value for name, value in state.items() if name in names.values()},
        "state": {name: value for name, value in state.items() if name not in names.values()},
    }


def relative_difference(value: Tensor | None, expected: Tensor) -> float:
    """The largest relative difference; infinite where one of the two is missing, or not a number."""
    if value is None or value.shape != expected.shape:
        return math.inf
    if not expected.is_floating_point():
        return 0.0 if bool((value == expected).all()) else math.inf
    same = (value == expected) | (value.isnan() & expected.isnan())
    relative = ((value - expected).abs() / (expected.abs() + _SMALLEST)).masked_fill(same, 0.0)
    return float(relative.masked_fill(relative.isnan(), math.inf).max()) if relative.numel() else 0.0


@dataclass
class _Losses:
    """Losses, terms and measures of every step, by name."""

    values: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, record: dict[str, object]) -> None:
        for name, value in record.items():
            if isinstance(value, int | float) and name not in ("step", *SPEED):
                self.values.setdefault(name, []).append(torch.tensor(value, dtype=torch.float64))


def in_float64(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches with images and other floating-point values in float64."""
    for batch in batches:
        values = {
            name: map_tensors(lambda part: part.double() if part.is_floating_point() else part, value)
            for name, value in batch.values.items()
        }
        yield replace(batch, values=values)


def _shortened(stage: StageOfRun) -> StageOfRun:
    """The stage with as many steps as it takes until each of its flows has run twice."""
    mixture = stage.mixture
    enough = (steps for steps in range(_STEPS, _LONGEST) if min(mixture.before(steps).values()) >= _STEPS)
    steps = next(enough, _LONGEST)
    flows = tuple(replace(flow, config=_with_steps(flow.config, steps)) for flow in stage.flows)
    return replace(stage, config=_with_steps(stage.config, steps), flows=flows, before=0)


def _with_steps(config: RunConfig, steps: int) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"steps": steps, "log_every": 1})})
