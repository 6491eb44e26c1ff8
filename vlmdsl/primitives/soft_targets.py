"""Primitives for targets computed from similarities, and the divergence from them. A target has no gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import AxesDisagree
from vlmdsl.ir import Node
from vlmdsl.primitives.criteria import MATRIX_AND_TARGETS, check_cross_entropy
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import SimType

_AFFINITY = Subject(
    "affinity", ("Sim",), "the affinity of each row to each column; sums of similarities, with pairs excluded or not"
)


def _stopped(builder: Builder, affinity: Value) -> Node:
    assert isinstance(affinity, Node)
    return builder.add("stop", affinity)


def _softmax(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    return builder.add("softmax", _stopped(builder, subjects["affinity"]))


register(
    Primitive(
        name="softmax",
        family="targets",
        summary="The softmax of an affinity, separately in each direction, as a target (of a teacher). No gradient.",
        meaning=_softmax,
        subjects=(_AFFINITY,),
        laws=("permutation",),
        formula=r"P_{ij} = \frac{e^{A_{ij}}}{\sum_k e^{A_{ik}}}",
        cost="no matrix product; two passes over the matrix",
        example="contrast(image, text, targets=softmax(10 * similarity(stop(image), stop(text))))",
    )
)


class TransportParameters(Parameters):
    """Arguments of `transport`."""

    epsilon: float = Field(gt=0.0, description="the softness of the plan: the affinity is divided by it")
    iterations: int = Field(default=5, ge=1, le=100, description="number of alternating scalings of rows and columns")


def _transport(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, TransportParameters)
    affinity = _stopped(builder, subjects["affinity"])
    if affinity.type != SimType():
        raise Fault(AxesDisagree.at(builder.place("affinity"), str(affinity.type), left=SimType(), right=affinity.type))
    return builder.add("transport", affinity, epsilon=float(parameters.epsilon), iterations=parameters.iterations)


register(
    Primitive(
        name="transport",
        family="targets",
        summary=(
            "The entropic optimal-transport plan of an affinity over the global batch, as a target (Sinkhorn's scaling, "
            "rows first and columns last, then each row to 1; mirrored for the columns). No gradient."
        ),
        meaning=_transport,
        subjects=(_AFFINITY,),
        parameters=TransportParameters,
        laws=("permutation",),
        formula=r"P = \mathrm{diag}(u)\, e^{A / \epsilon}\, \mathrm{diag}(v)",
        cost="no matrix product; two passes over the matrix per iteration and direction",
        example="contrast(image, text, targets=transport(similarity(stop(image), stop(text)), epsilon=0.15))",
    )
)


class DivergenceParameters(Parameters):
    """Arguments of `kl`."""

    along: Literal["rows", "columns"] = Field(
        description="`rows`: each row is a query over the columns; `columns`: each column is a query over the rows"
    )


def _kl(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, DivergenceParameters)
    logits, targets = check_cross_entropy(builder, subjects, parameters.along)
    loss = builder.add("cross_entropy", logits, targets, along=parameters.along, denominator="all")
    stopped = builder.add("stop", logits)
    entropy = builder.add("target_entropy", stopped, targets, along=parameters.along)
    return builder.add("subtract", loss, entropy)


register(
    Primitive(
        name="kl",
        family="matrix level",
        summary=(
            "The Kullback-Leibler divergence of each query's softmax over its candidates from its target distribution "
            "over these: cross-entropy minus entropy."
        ),
        meaning=_kl,
        subjects=MATRIX_AND_TARGETS,
        parameters=DivergenceParameters,
        laws=("permutation", "non_negative", "translation_invariant"),
        formula=r"\ell_i = \sum_j P_{ij} \log \frac{P_{ij} \sum_k e^{z_{ik}}}{e^{z_{ij}}}",
        cost="no matrix product; two passes over the matrix",
        example=(
            "let soft = softmax(4 * similarity(stop(image), stop(text)))\n"
            'minimize mean(kl(similarity(image, text) / 0.07, targets=soft, along="rows"))'
        ),
    )
)
