"""Schedules: functions of the step, computed outside the graph and passed to it at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vlmdsl.ir.node import Node

__all__ = ["Duration", "Ramp", "ramp_at", "ramps_at", "ramps_in_epochs"]


@dataclass(frozen=True, slots=True)
class Duration:
    """A part of a run: a number of `steps` or `epochs`, or a `share` of it."""

    amount: float
    unit: Literal["share", "steps", "epochs"]

    def __str__(self) -> str:
        if self.unit == "share":
            return "the run" if self.amount == 1.0 else f"{self.amount:.0%} of the run"
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit.removesuffix('s')}"


@dataclass(frozen=True, slots=True)
class Ramp:
    """A number that goes from `start` to `end` `over` a part of the run that begins `after` another, and stays there.

    With a `cosine` it starts and ends slowly: (1 - cos(pi t)) / 2 of the way after the share t of the time.
    """

    shape: Literal["linear", "cosine"]
    start: float
    end: float
    over: Duration
    after: Duration

    @property
    def in_epochs(self) -> bool:
        """Whether it begins or ends after a number of epochs."""
        return any(part.unit == "epochs" and part.amount > 0 for part in (self.over, self.after))

    def __str__(self) -> str:
        how = " in a cosine" if self.shape == "cosine" else ""
        after = f", after {self.after}" if self.after.amount else ""
        return f"from {self.start:g} to {self.end:g}{how} over {self.over}{after}"


def ramps_at(nodes: Iterable[Node], step: int, steps: int, per_epoch: int) -> dict[str, float]:
    """The numbers of `ramp` nodes at `step`, counted from 0, by name.

    A run has `steps`, an epoch `per_epoch` of them; 0 if unknown. ValueError names a schedule that needs them.
    """
    numbers = {}
    for node in nodes:
        ramp = node.attribute("ramp")
        assert isinstance(ramp, Ramp)
        try:
            numbers[node.string("name")] = ramp_at(ramp, step, steps, per_epoch)
        except ValueError as missing:
            raise ValueError(f"{node.string('name')} {missing}") from None
    return numbers


def ramps_in_epochs(nodes: Iterable[Node]) -> list[str]:
    """The names of the `ramp` nodes that count epochs, whose length in steps they need."""
    ramps = ((node.string("name"), node.attribute("ramp")) for node in nodes)
    return [name for name, ramp in ramps if isinstance(ramp, Ramp) and ramp.in_epochs]


def ramp_at(ramp: Ramp, step: int, steps: int, per_epoch: int) -> float:
    """The number at `step`, counted from 0.

    >>> ramp_at(Ramp("linear", 0.0, 0.4, Duration(1.0, "epochs"), Duration(0.0, "share")), 25, steps=1000, per_epoch=100)
    0.1
    """
    after, over = (_steps_of(duration, steps, per_epoch) for duration in (ramp.after, ramp.over))
    done = min(max((step - after) / over, 0.0), 1.0) if over > 0 else float(step >= after)
    share = (1.0 - math.cos(math.pi * done)) / 2.0 if ramp.shape == "cosine" else done
    return ramp.end if share == 1.0 else ramp.start + share * (ramp.end - ramp.start)


def _steps_of(duration: Duration, steps: int, per_epoch: int) -> float:
    whole: dict[str, int] = {"share": steps, "epochs": per_epoch, "steps": 1}
    if duration.amount and whole[duration.unit] < 1:
        lacking = {"share": "`steps`, the length of the run", "epochs": "`per_epoch`, the steps of an epoch"}
        raise ValueError(f"follows the run: pass {lacking[duration.unit]}")
    return duration.amount * whole[duration.unit]
