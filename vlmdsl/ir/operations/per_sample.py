"""Numbers per sample of the data set: tables that a step reads and writes at the positions of its samples."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import BOUND, fixed, need, one_of, take
from vlmdsl.ir.operations.state import STATE
from vlmdsl.types import IndexType, PerSampleType, ScalarType, ScoreType, Type

__all__ = ["INDEX", "LOOKUP", "MIXTURE", "RUNNING_MEANS", "WRITE"]


def running_means(node: Node, types: tuple[Type, ...]) -> Type:
    number = () if node.attribute("momentum") is not None else (ScalarType,)
    take(types, ScoreType, ScoreType, *number)
    need(node.inputs[0].operation is LOOKUP, "the means so far are not read from a table")
    return ScoreType()


def mixture(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, PerSampleType, PerSampleType)
    need(all(parent.operation is STATE for parent in node.inputs), "reads something else than tables")
    one_of(node, "component", "larger", "smaller")
    need(node.number("iterations") >= 1, f"iterations is {node.attribute('iterations')!r}")
    return PerSampleType()


INDEX = define(
    Operation(
        "index",
        fixed(IndexType()),
        {"name": (str,)},
        named=True,
        stops_gradient=True,
        carries="`name`",
        gives="Index: the position of each sample in the data set; an input of the objective",
    )
)
LOOKUP = define(
    Operation(
        "lookup",
        fixed(ScoreType(), PerSampleType, IndexType),
        per_sample=True,
        stops_gradient=True,
        takes="a PerSample state, an Index",
        gives="Score: the numbers of the samples of the batch; without gradient",
    )
)
RUNNING_MEANS = define(
    Operation(
        "running_means",
        running_means,
        {"momentum": BOUND},
        {"momentum": None},
        per_sample=True,
        stops_gradient=True,
        takes="the result of a lookup, a Score; a Scalar, if the momentum is one",
        carries="`momentum`, where it is a number",
        gives="Score: momentum times a sample's mean so far plus the rest times its score; without a mean, its score",
    )
)
WRITE = define(
    Operation(
        "write",
        fixed(PerSampleType(), PerSampleType, IndexType, ScoreType),
        stops_gradient=True,
        takes="a PerSample state, an Index, a Score",
        gives="PerSample: the table with the scores of the global batch; of a repeated sample the last one",
    )
)
MIXTURE = define(
    Operation(
        "mixture",
        mixture,
        {"component": (str,), "iterations": (int,)},
        stops_gradient=True,
        takes="two PerSample states: the numbers, and the probabilities so far",
        carries="`component` (`larger` or `smaller` mean), `iterations`",
        gives=(
            "PerSample: the probability that each number belongs to that component of a mixture of two normal "
            "distributions fitted to all of them; without a number, the probability so far"
        ),
    )
)
