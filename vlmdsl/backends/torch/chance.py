"""The loss at chance: the value of a term if all candidates are equally likely, the reference for a loss curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vlmdsl.ir import Contrast, Direction, Node, Program, walk
from vlmdsl.ir.operation import Operation
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import (
    EXCLUDE,
    EXCLUDE_OWN,
    EXCLUDE_PAIRS,
    LOG_SUM_EXP,
    SCORE,
    SIMILARITY,
    TRANSPOSE,
    UNITE,
)
from vlmdsl.ir.operations.reductions import CROSS_ENTROPY, MEAN, SAMPLES
from vlmdsl.ir.operations.scalars import CONSTANT, DIVIDE, MULTIPLY, SOFTPLUS, SUBTRACT
from vlmdsl.ir.operations.state import MEMORY
from vlmdsl.ir.operations.targets import PAIRED
from vlmdsl.types import ScoreType, SimType, holds_memory

__all__ = ["ChanceLevels", "Level", "chance_level"]

Level = float | Tensor
"""A number, 0-d if it depends on the fill of a queue."""


class ChanceLevels:
    """The losses at chance of the terms of a program, as metrics: of those for which they are known."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._last: dict[int, dict[str, Level]] = {}
        """Those of the last number of samples, where they do not depend on the fill of a queue."""

    def __call__(self, samples: int, filled: Mapping[str, Tensor]) -> dict[str, Level]:
        """The levels for a global batch of `samples`; `filled` as for `chance_level`."""
        if torch.compiler.is_compiling():  # in a caller's graph a tensor: a number would specialise the graph to this size
            return self._levels(torch.full((), samples, dtype=torch.float32), filled)
        if filled:
            return self._levels(float(samples), filled)
        levels = self._last.get(samples)
        if levels is None:
            levels = self._levels(float(samples), filled)
            self._last = {samples: levels}
        return levels

    def _levels(self, samples: Level, filled: Mapping[str, Tensor]) -> dict[str, Level]:
        levels = {f"{term.name}.chance": chance_level(term.node, samples, filled) for term in self._program.terms}
        return {name: level for name, level in levels.items() if level is not None}


def chance_level(node: Node, samples: Level, filled: Mapping[str, Tensor]) -> Level | None:
    """The value of a loss over a global batch of `samples` when all logits are equal; None where that is not known.

    A cross-entropy is then log N whatever its target, which sums to 1; weights and excluded samples make it depend on data.
    The entries of a queue are candidates as soon as they are written: `filled` (0-d) of each, by its name.
    """
    if node.operation is CONSTANT:
        return node.number("value")
    if node.operation is SAMPLES and not node.inputs:
        return samples
    if node.operation is CONTRAST:
        region = node.attribute("contrast")
        assert isinstance(region, Contrast)
        return _sum(_of_direction(direction, samples) for direction in (region.rows, region.columns) if direction)
    if node.operation is MEAN:
        return _of_scores(node.inputs[0], samples, filled)
    operands = [chance_level(parent, samples, filled) for parent in node.inputs]
    levels = [value for value in operands if value is not None]
    if len(levels) < len(operands):
        return None
    return _arithmetic(node.operation, levels)


def _arithmetic(operation: Operation, operands: list[Level]) -> Level | None:
    """The value of an operation on numbers; for a level that depends on a queue only sums, products and quotients."""
    of_tensors = bool(operation.signs) or operation in (MULTIPLY, DIVIDE)
    if operation.number is None or (any(isinstance(operand, Tensor) for operand in operands) and not of_tensors):
        return None
    try:
        return operation.number(*operands)
    except (ArithmeticError, ValueError):
        return None


def _of_direction(direction: Direction, samples: Level) -> Level | None:
    if direction.weight is not None or direction.keep is not None:
        return None
    mass = sum(part.coefficient for part in direction.targets)
    return direction.coefficient * mass * _log(samples - 1 if direction.without_positive else samples)


def _of_scores(scores: Node, samples: Level, filled: Mapping[str, Tensor]) -> Level | None:
    if scores.operation is SOFTPLUS:
        return _of_own_pair(scores.inputs[0], samples, filled)
    if scores.operation is not CROSS_ENTROPY:
        return None
    candidates = _candidates(scores.inputs[0], samples, filled)
    if candidates is None or _may_lose_targets(scores.inputs[1], scores.inputs[0]):
        return None
    return _log(candidates - 1 if scores.string("denominator") == "negatives" else candidates)


def _of_own_pair(excess: Node, samples: Level, filled: Mapping[str, Tensor]) -> Level | None:
    """The softplus of the others' log-sum-exp minus the logit of the pair: log(1 + N)."""
    if excess.operation is not SUBTRACT or excess.inputs[0].operation is not LOG_SUM_EXP:
        return None
    others, own = _compared(excess.inputs[0].inputs[0]), _compared(excess.inputs[1])
    if others.operation is not SIMILARITY or own.operation is not SCORE:
        return None
    candidates = _candidates(excess.inputs[0].inputs[0], samples, filled)
    return None if candidates is None else _log(candidates + 1)


def _may_lose_targets(target: Node, logits: Node) -> bool:
    """Whether the targets of some rows may be entirely excluded, so that they have no loss: only pairs are certain to
    remain."""
    while logits.operation is UNITE and target.operation is PAIRED:
        logits = logits.inputs[0]  # no pair is in the further columns
    return any(node.operation is EXCLUDE_PAIRS for node in walk([logits]))


def _compared(logits: Node) -> Node:
    """The similarities, or scores, that logits are made of by arithmetic with numbers that all of them share."""
    while logits.operation.elementwise:
        own = [parent for parent in logits.inputs if isinstance(parent.type, SimType | ScoreType)]
        if len(own) != 1:
            break
        logits = own[0]
    return logits


def _candidates(logits: Node, samples: Level, filled: Mapping[str, Tensor]) -> Level | None:
    """The candidates of a row; None where that depends on data."""
    if logits.operation is UNITE:
        halves = [_candidates(half, samples, filled) for half in logits.inputs]
        counts = [half for half in halves if half is not None]
        return sum(counts) if len(counts) == len(halves) else None
    if logits.operation is EXCLUDE_PAIRS:
        inner = _candidates(logits.inputs[0], samples, filled)
        return None if inner is None else inner - 1
    if logits.operation is TRANSPOSE:
        return _candidates(logits.inputs[0], samples, filled)
    nodes = list(walk([logits]))
    if any(node.operation in (EXCLUDE, EXCLUDE_OWN) for node in nodes):
        return None
    memories = [node for node in nodes if node.operation is MEMORY]
    if not memories or not isinstance(logits.type, SimType) or not holds_memory(logits.type.columns):
        return samples
    held = [filled[node.string("name")] for node in memories]
    return held[0] if len(held) == 1 else torch.stack(held).amin()


def _log(candidates: Level) -> Level:
    return candidates.clamp(min=1).log() if isinstance(candidates, Tensor) else math.log(max(candidates, 1))


def _sum(values: Iterable[Level | None]) -> Level | None:
    total: Level = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
