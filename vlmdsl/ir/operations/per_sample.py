"""Numbers that are kept for each sample of the data set: tables that a step reads and writes by where its samples are."""

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
        gives="Index: where each sample is in the data set; an input of the objective",
    )
)
LOOKUP = define(
    Operation(
        "lookup",
        fixed(ScoreType(), PerSampleType, IndexType),
        per_sample=True,
        stops_gradient=True,
        takes="a state of each sample, an Index",
        gives="Score: what is kept of each sample of the batch; without gradient",
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
        takes="Score that is looked up, Score; a Scalar, if the momentum is one",
        carries="`momentum`, where it is a number",
        gives="Score: momentum times a sample's mean so far plus the rest times its score; where there is none, its score",
    )
)
WRITE = define(
    Operation(
        "write",
        fixed(PerSampleType(), PerSampleType, IndexType, ScoreType),
        stops_gradient=True,
        takes="a state of each sample, an Index, a Score",
        gives="PerSample: the same with the scores of the global batch in their places; of a sample twice in it the last",
    )
)
MIXTURE = define(
    Operation(
        "mixture",
        mixture,
        {"component": (str,), "iterations": (int,)},
        stops_gradient=True,
        takes="a state of each sample; another one, of probabilities",
        carries="`component` (`larger`, `smaller`: its mean), `iterations`",
        gives=(
            "PerSample: the probability that each number belongs to that component of a mixture of two normal distributions "
            "fitted to all of them; where there is no number, what it was"
        ),
    )
)
