"""The number of steps of a run: as many as its epochs are, and whether a stopped or finished run may take others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import EpochsUnknown
from vlmdsl.ir import ONE_SOURCE, Program, ramps
from vlmdsl.ir.ramps import Ramp
from vlmdsl.runtime.data.order import Order, groups_by_source
from vlmdsl.runtime.training.assembly import Data, weights_of
from vlmdsl.runtime.training.course import StageOfRun
from vlmdsl.runtime.training.schedule import learning_rate_factor
from vlmdsl.schema import RunConfig
from vlmdsl.source import Span

__all__ = ["changes_of_length", "in_steps"]

_COMPARED = 2000
"""Steps whose learning rates are compared, spread over those that are done."""


def in_steps(config: RunConfig, course: Sequence[StageOfRun], data: Mapping[str, Mapping[str, Data]]) -> RunConfig:
    """The settings with as many `train.steps` as `train.epochs` are, if these are set.

    Raises `DiagnosticError` (V0847) where an epoch has no length: of several stages or flows, or of a stream.
    """
    epochs = config.train.epochs
    if epochs is None:
        return config
    reason = ""
    if len(course) > 1 or len(course[0].flows) > 1:
        reason = "the recipe has several stages or flows, each with epochs of its own"
    (own, *_) = data[course[0].name].values()
    if own.stream is not None:
        reason = "the training data is a stream, whose length is not known"
    if reason:
        help = ("set `train.steps` instead",)
        raise DiagnosticError((EpochsUnknown.at(Span("<command line>", 0, 0), reason=reason, help=help),))
    program = course[0].flows[0].objective.program
    groups = groups_by_source(own.train, own.mapping) if program.batch_policy == ONE_SOURCE else None
    parts = weights_of(program, config.data, own)
    per_epoch = Order(len(own.train), config.train.batch, 0, None if groups is None else groups.values(), parts).per_epoch
    train = config.train.model_copy(update={"steps": max(math.ceil(epochs * per_epoch), 1)})
    return config.model_copy(update={"train": train})


def changes_of_length(before: RunConfig, now: RunConfig, done: int, programs: Sequence[Program]) -> list[str]:
    """What would have been different in the first `done` steps of a run of `now.train.steps`; empty if nothing, so that the
    run may be continued to there."""
    steps = before.train.steps, now.train.steps
    if steps[1] < done:
        return [f"{done:,} steps are done already"]
    changes = list(_ramps_of_length(programs))
    rate = before.optimizer.learning_rate
    for number in range(min(done, _COMPARED)):
        step = number * done // min(done, _COMPARED)
        old, new = (rate * learning_rate_factor(step, length, before.schedule) for length in steps)
        if old != new:
            changes.append(
                f"the learning rate of step {step + 1:,} was {old:.4g}, and of a run of {steps[1]:,} steps it is {new:.4g} "
                "(with `schedule.final=1` it is the same)"
            )
            break
    return changes


def _ramps_of_length(programs: Sequence[Program]) -> Iterator[str]:
    for program in programs:
        for node in ramps(program):
            ramp = node.attribute("ramp")
            if isinstance(ramp, Ramp) and any(part.unit == "share" and part.amount for part in (ramp.over, ramp.after)):
                yield f"`{node.string('name')}` goes {ramp}, which is longer now"
