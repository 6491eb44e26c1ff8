"""From matrices and targets to a loss of each sample, and from those to a loss."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import NUMBER, fixed, need, one_of, take
from vlmdsl.types import ConditionType, LossType, ScalarType, ScoreType, SimType, TargetType, Type

__all__ = [
    "CROSS_ENTROPY", "HINGE", "MEAN", "SAMPLES", "SIGMOID_LOSS", "TARGET_ENTROPY",
]  # fmt: skip


def asked(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType, TargetType)
    assert isinstance(types[0], SimType)
    one_of(node, "along", "rows", "columns")
    need(node.string("along") == "rows" or "+" not in types[0].columns, f"asks the columns of {types[0]}")
    return ScoreType(types[0].rows if node.string("along") == "rows" else types[0].columns)


def cross_entropy(node: Node, types: tuple[Type, ...]) -> Type:
    one_of(node, "denominator", "all", "negatives")
    return asked(node, types)


def hinge(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    assert isinstance(types[0], SimType)
    one_of(node, "along", "rows", "columns")
    one_of(node, "negatives", "mean", "hardest")
    need(node.string("along") == "rows" or "+" not in types[0].columns, f"asks the columns of {types[0]}")
    return ScoreType(types[0].rows if node.string("along") == "rows" else types[0].columns)


def mean(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, *((ScoreType,) if len(types) == 1 else (ScoreType, ConditionType)))
    return LossType()


def samples(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, *((ConditionType,) * len(types[:1])))
    return ScalarType()


CROSS_ENTROPY = define(Operation("cross_entropy", cross_entropy, {"along": (str,), "denominator": (str,)}, criterion=True))
TARGET_ENTROPY = define(Operation("target_entropy", asked, {"along": (str,)}, criterion=True))
HINGE = define(Operation("hinge", hinge, {"along": (str,), "margin": NUMBER, "negatives": (str,)}, criterion=True))
SIGMOID_LOSS = define(Operation("sigmoid_loss", fixed(ScoreType(), SimType, TargetType), criterion=True))
MEAN = define(Operation("mean", mean, keeps_zero=True))
SAMPLES = define(Operation("samples", samples, stops_gradient=True))
