"""Criteria: the loss of each sample, from a matrix of logits and its targets."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.meaning import OneStreamWithItself, TargetsDoNotSumToOne
from vlmdsl.diagnostics.catalog.types import AxesDisagree
from vlmdsl.ir import Node, walk
from vlmdsl.ir.operations.matrices import EXCLUDE_PAIRS, SIMILARITY, UNITE
from vlmdsl.ir.operations.scalars import CONSTANT, DIVIDE, MULTIPLY
from vlmdsl.primitives.matrices import check_one_kind, of_batch
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import SimType, TargetType


class CrossEntropyParameters(Parameters):
    """Arguments of `cross_entropy`."""

    along: Literal["rows", "columns"] = Field(
        description="`rows`: each row is a query over the columns; `columns`: each column is a query over the rows"
    )
    denominator: Literal["all", "negatives"] = Field(
        default="all", description="`negatives` excludes the pair itself from the log-sum-exp (the decoupled loss)"
    )


def target_total(target: Node) -> float | None:
    """The sum of each row of a target, if it is a constant."""
    totals: dict[Node, float | None] = {}
    for node in walk([target]):
        totals[node] = _total(node, [totals[parent] for parent in node.inputs])
    return totals[target]


def _total(node: Node, totals: list[float | None]) -> float | None:
    """A node's total, given those of its inputs; that of a number is itself."""
    if node.operation is CONSTANT:
        return node.number("value")
    if node.operation.sums_to_one:
        return 1.0
    linear = node.operation.signs or node.operation in (MULTIPLY, DIVIDE)
    rule = operator.add if node.operation is UNITE else node.operation.number if linear else None
    if rule is None or len(totals) != 2 or totals[0] is None or totals[1] is None:
        return None
    return rule(totals[0], totals[1])


def _compares_only_itself(logits: Node) -> bool:
    """Whether the only positive of each row is the row itself."""
    made_of, seen = [logits], {logits}
    while made_of:
        node = made_of.pop()
        matrices = [parent for parent in node.inputs if isinstance(parent.type, SimType)]
        own = node.inputs[0] is node.inputs[1] if node.operation is SIMILARITY else bool(matrices)
        if not own or node.operation is EXCLUDE_PAIRS:
            return False
        made_of += [parent for parent in matrices if parent not in seen]
        seen.update(matrices)
    return True


def _check_targets(builder: Builder, logits: Node, targets: Node) -> None:
    _check_axes(builder, logits, targets)
    if _compares_only_itself(logits):
        builder.warn(OneStreamWithItself.at(builder.span))
    total = target_total(targets)
    if total is not None and abs(total - 1.0) > 1e-9:
        help = ("their coefficients must sum to 1, as in `0.5 * paired + 0.5 * flipped`",)
        raise Fault(TargetsDoNotSumToOne.at(builder.place("targets"), help=help, total=total), targets)


def _check_axes(builder: Builder, logits: Node, targets: Node) -> None:
    assert isinstance(logits.type, SimType)
    assert isinstance(targets.type, TargetType)
    leads = f"{logits.type.columns}+".startswith(f"{targets.type.columns}+")
    if targets.type.rows != logits.type.rows or not leads:
        raise Fault(AxesDisagree.at(builder.place("targets"), str(targets.type), left=logits.type, right=targets.type))


def check_cross_entropy(builder: Builder, subjects: Mapping[str, Value], along: str) -> tuple[Node, Node]:
    """Logits and targets that fit each other."""
    logits, targets = subjects["logits"], subjects["targets"]
    assert isinstance(logits, Node)
    assert isinstance(targets, Node)
    assert isinstance(logits.type, SimType)
    _check_targets(builder, logits, targets)
    if along == "columns":
        check_one_kind(builder, of_batch(builder, logits, "logits", "cross_entropy"), "cross_entropy", "logits")
    return logits, targets


def _cross_entropy(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, CrossEntropyParameters)
    logits, targets = check_cross_entropy(builder, subjects, parameters.along)
    if parameters.denominator == "negatives":
        of_batch(builder, logits, "logits", "cross_entropy")
    return builder.add("cross_entropy", logits, targets, along=parameters.along, denominator=parameters.denominator)


MATRIX_AND_TARGETS = (
    Subject("logits", ("Sim",), "the scaled similarities"),
    Subject("targets", ("Target",), "the target distribution of each row (or column)", keyword=True),
)

register(
    Primitive(
        name="cross_entropy",
        family="matrix level",
        summary=(
            "Each query's cross-entropy between its target, as a distribution over its candidates C, and the softmax over "
            "these; 0 for a target without any candidate."
        ),
        meaning=_cross_entropy,
        subjects=MATRIX_AND_TARGETS,
        parameters=CrossEntropyParameters,
        laws=("permutation", "non_negative", "translation_invariant"),
        formula=(
            r"\ell_i = -\sum_{j \in C_i} \frac{P_{ij}}{\sum_{k \in C_i} P_{ik}} "
            r"\log \frac{e^{z_{ij}}}{\sum_{k \in C_i} e^{z_{ik}}}"
        ),
        cost="no matrix product; one pass over the matrix",
        example=('let z = similarity(image, text) / 0.07\nminimize mean(cross_entropy(z, targets=paired, along="columns"))'),
    )
)


def _sigmoid_loss(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits, targets = subjects["logits"], subjects["targets"]
    assert isinstance(logits, Node)
    assert isinstance(targets, Node)
    assert isinstance(logits.type, SimType)
    _check_targets(builder, logits, targets)
    return builder.add("sigmoid_loss", logits, targets)


register(
    Primitive(
        name="sigmoid_loss",
        family="matrix level",
        summary="Classifies each pair separately: -log sigmoid(z) summed over a row's positives, (-z) over negatives.",
        meaning=_sigmoid_loss,
        subjects=MATRIX_AND_TARGETS,
        laws=("permutation", "non_negative"),
        formula=r"\ell_i = -\sum_j \log \sigma(\pm z_{ij})",
        cost="no matrix product; one pass over the matrix",
        example=("let z = similarity(image, text) * 10 - 10\nminimize mean(sigmoid_loss(z, targets=paired))"),
    )
)


class HingeParameters(Parameters):
    """Arguments of `hinge`."""

    along: Literal["rows", "columns"] = Field(
        description="`rows`: each row's pair against the other columns; `columns`: each column's against the other rows"
    )
    margin: float = Field(default=0.2, ge=0.0, description="how much less similar than the pair a negative should be")
    negatives: Literal["mean", "hardest"] = Field(
        default="mean", description="the mean over all negatives, or the most similar one"
    )


def _hinge(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, HingeParameters)
    matrix = of_batch(builder, subjects["matrix"], "matrix", "hinge")
    assert isinstance(matrix.type, SimType)
    if parameters.along == "columns":
        check_one_kind(builder, matrix, "hinge", "matrix")
    attributes = {"along": parameters.along, "margin": float(parameters.margin), "negatives": parameters.negatives}
    return builder.add("hinge", matrix, **attributes)


register(
    Primitive(
        name="hinge",
        family="matrix level",
        summary="The triplet loss: by how much the negatives of each query violate the margin to its pair.",
        meaning=_hinge,
        subjects=(Subject("matrix", ("Sim",), "the similarities; the pair of sample i is at (i, i)"),),
        parameters=HingeParameters,
        laws=("permutation", "non_negative", "translation_invariant"),
        formula=r"\ell_i = \frac{1}{N - 1} \sum_{j \neq i} \max(0, m + z_{ij} - z_{ii})",
        cost="no matrix product; one pass over the matrix",
        example=(
            "let z = similarity(image, text)\n"
            'minimize mean(hinge(z, along="rows", margin=20%)) + mean(hinge(z, along="columns", margin=20%))'
        ),
    )
)


def _log_sum_exp(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits = subjects["logits"]
    assert isinstance(logits, Node)
    assert isinstance(logits.type, SimType)
    return builder.add("log_sum_exp", logits)


register(
    Primitive(
        name="logsumexp",
        family="matrix level",
        summary="Each row's log-sum-exp over its candidates, a soft maximum; minus infinity without candidates.",
        meaning=_log_sum_exp,
        subjects=(Subject("logits", ("Sim",), "the scaled similarities"),),
        laws=("permutation",),
        formula=r"\log \sum_j e^{z_{ij}}",
        cost="no matrix product; one pass over the matrix",
        example="minimize mean(logsumexp(similarity(image, text) / 0.07) - score(image, text) / 0.07)",
    )
)
