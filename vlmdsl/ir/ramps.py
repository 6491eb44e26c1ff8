"""Numbers that follow the run: a function of the step, computed outside of the graph and given to it at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.scalars import RAMP, Duration, Ramp
from vlmdsl.ir.program import Program

__all__ = ["ramp_at", "ramps", "ramps_at"]


def ramps(program: Program) -> list[Node]:
    """The `ramp` nodes in the order of first use; names are unique."""
    return [node for node in program.nodes() if node.operation is RAMP]


def ramps_at(nodes: Iterable[Node], step: int, steps: int, per_epoch: int) -> dict[str, float]:
    """The numbers of `ramp` nodes at `step`, counted from 0, by name.

    A run has `steps`, an epoch `per_epoch` of them; 0 where that is not known. ValueError names a ramp that needs to know.
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
