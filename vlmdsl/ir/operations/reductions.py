"""From matrices and targets to a loss per sample, and from those to a loss."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import NUMBER, fixed, need, one_of, take
from vlmdsl.types import ConditionType, LossType, ScalarType, ScoreType, SimType, TargetType, Type

__all__ = [
    "CROSS_ENTROPY", "HINGE", "MEAN", "SAMPLES", "SIGMOID_LOSS", "TARGET_ENTROPY",
]  # fmt: skip


def per_query(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType, TargetType)
    assert isinstance(types[0], SimType)
    one_of(node, "along", "rows", "columns")
    need(node.string("along") == "rows" or "+" not in types[0].columns, f"asks the columns of {types[0]}")
    return ScoreType(types[0].rows if node.string("along") == "rows" else types[0].columns)


def cross_entropy(node: Node, types: tuple[Type, ...]) -> Type:
    one_of(node, "denominator", "all", "negatives")
    return per_query(node, types)


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


CROSS_ENTROPY = define(
    Operation(
        "cross_entropy",
        cross_entropy,
        {"along": (str,), "denominator": (str,)},
        criterion=True,
        takes="Sim, Target",
        carries="`along` (`rows`, `columns`), `denominator` (`all`, `negatives`)",
        gives="Score: each sample's loss in that direction, its target renormalised over its candidates",
    )
)
TARGET_ENTROPY = define(
    Operation(
        "target_entropy",
        per_query,
        {"along": (str,)},
        criterion=True,
        takes="Sim, Target",
        carries="`along`",
        gives="Score: the entropy of each sample's target over its candidates",
    )
)
HINGE = define(
    Operation(
        "hinge",
        hinge,
        {"along": (str,), "margin": NUMBER, "negatives": (str,)},
        criterion=True,
        counts="candidate within the margin",
        takes="Sim",
        carries="`along`, `margin`, `negatives` (`mean`, `hardest`)",
        gives=(
            "Score: max(0, margin + negative - pair) over a sample's candidates except the pair, mean or largest; none: 0"
        ),
    )
)
SIGMOID_LOSS = define(
    Operation(
        "sigmoid_loss",
        fixed(ScoreType(), SimType, TargetType),
        criterion=True,
        takes="Sim, Target",
        gives="Score: sum over candidates of -log sigmoid(z), z = +logit where the target is positive else -logit",
    )
)
MEAN = define(
    Operation(
        "mean",
        mean,
        keeps_zero=True,
        counts="sample that its condition selects",
        takes="Score, or Score and Condition",
        gives="Loss: over all samples, or over those where the condition holds (none: 0)",
    )
)
SAMPLES = define(
    Operation(
        "samples",
        samples,
        stops_gradient=True,
        takes="nothing, or a Condition",
        gives="Scalar: the size of the global batch, or of the part of it where the condition holds",
    )
)
