"""The similarities: functions that compare two encoded streams, as values (`0.5*cosine + 0.5*tokenmax` is one)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Law, Parameters, Primitive, Subject
from vlmdsl.primitives.values import SimilarityPart, SimilarityValue, Value
from vlmdsl.types import MemoryType, TokensType, VecType

__all__ = ["COSINE", "UnitParameters", "apply_similarity", "paired_score", "similarity_part", "similarity_primitive"]

_DECLARED: dict[str, tuple[str, bool, str]] = {}
"""(level, normalized, operation) of every similarity, by name."""

COSINE = SimilarityValue((SimilarityPart(1.0, "dot", "pooled", True),))
"""The default similarity."""

_STREAM = ("Encoded", "Vec", "Tokens", "Image", "Text")


class UnitParameters(Parameters):
    """Arguments of every similarity of unit vectors."""

    epsilon: float = Field(
        default=0.0, ge=0.0, description="added to each vector's length before dividing by it; big_vision adds 1e-8"
    )


class TokenmaxParameters(UnitParameters):
    """Arguments of `tokenmax`."""

    share: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="share of a sample's tokens that can be a maximum, rounded up: in FILIP 25 %, the most similar ones",
    )
    count: int = Field(default=0, ge=0, description="maximum number of these tokens, 0 for no limit; DeCLIP keeps 16")
    rank: Literal["best", "partner"] = Field(
        default="best",
        description=(
            "which tokens these are: those with the largest similarity to any token of the other stream in the batch, or "
            "the largest sum of the similarities to the tokens of their own pair (DeCLIP)"
        ),
    )


def similarity_primitive(
    name: str,
    *,
    level: str,
    normalized: bool,
    summary: str,
    formula: str,
    laws: tuple[Law, ...],
    operation: str = "",
    parameters: type[Parameters] | None = None,
    cost: str = "",
    example: str = "",
    origin: str = "vlmdsl",
) -> Primitive:
    """A primitive that is a similarity without its subjects, and a matrix with them.

    `level` is what it compares, `pooled` or `tokens`; `normalized` ones see unit vectors; `operation` is the name of the
    torch implementation (the primitive's own name by default).
    """

    _DECLARED[name] = (level, normalized, operation or name)

    columns = _STREAM if level == "tokens" else (*_STREAM, "Memory")

    def meaning(builder: Builder, subjects: Mapping[str, Value], bound: Parameters) -> Value:
        value = SimilarityValue((_part(name, bound),))
        if "a" not in subjects:
            return value
        return apply_similarity(builder, value, subjects["a"], subjects["b"])

    return register(
        Primitive(
            name=name,
            family="similarities",
            summary=summary,
            meaning=meaning,
            subjects=(
                Subject("a", _STREAM, "the rows"),
                Subject("b", columns, "the columns"),
            ),
            parameters=parameters or (UnitParameters if normalized else Parameters),
            laws=laws,
            formula=formula,
            cost=cost,
            example=example or f"contrast(image, text, sim={name})",
            origin=origin,
        )
    )


def similarity_part(primitive: Primitive) -> SimilarityPart:
    """How a similarity primitive compares, with the defaults of its arguments."""
    return _part(primitive.name, primitive.parameters())


def _part(name: str, bound: Parameters) -> SimilarityPart:
    level, normalized, operation = _DECLARED[name]
    arguments = bound.model_dump(exclude_defaults=True)
    epsilon = arguments.pop("epsilon", 0.0) if normalized else 0.0
    return SimilarityPart(1.0, operation, level, normalized, float(epsilon), tuple(sorted(arguments.items())))


def _operand(builder: Builder, part: SimilarityPart, value: Value, argument: str) -> Node:
    if part.level == "pooled" and isinstance(value, Node) and isinstance(value.type, MemoryType):
        return value  # holds unit vectors
    features = (
        builder.tokens(value, argument, part.by) if part.level == "tokens" else builder.pooled(value, argument, part.by)
    )
    return builder.add("normalize", features, epsilon=part.epsilon) if part.normalized else features


def _rows(node: Node) -> str:
    assert isinstance(node.type, VecType | TokensType | MemoryType)
    return node.type.rows


def apply_similarity(builder: Builder, similarity: SimilarityValue, a: Value, b: Value) -> Node:
    """The matrix of `similarity` between the rows `a` and the columns `b`: Sim[rows of a, rows of b]."""
    total: Node | None = None
    for part in similarity.parts:
        left, right = _operand(builder, part, a, "a"), _operand(builder, part, b, "b")
        matrix = builder.add("similarity", left, right, by=part.by, arguments=part.arguments)
        if part.coefficient != 1.0:
            matrix = builder.add("multiply", matrix, builder.constant(part.coefficient))
        total = matrix if total is None else builder.add("add", total, matrix)
    assert total is not None
    return total


def paired_score(builder: Builder, similarity: SimilarityValue, a: Value, b: Value) -> Node:
    """The similarity of each pair (row i with column i): Score[B], without the matrix."""
    total: Node | None = None
    for part in similarity.parts:
        left, right = _operand(builder, part, a, "a"), _operand(builder, part, b, "b")
        score = builder.add("score", left, right, by=part.by, arguments=part.arguments)
        if part.coefficient != 1.0:
            score = builder.add("multiply", score, builder.constant(part.coefficient))
        total = score if total is None else builder.add("add", total, score)
    assert total is not None
    return total


similarity_primitive(
    "cosine",
    operation="dot",
    level="pooled",
    normalized=True,
    summary="The cosine of the angle between pooled features, as in CLIP.",
    formula=r"z_{ij} = \frac{x_i^\top y_j}{\|x_i\|\,\|y_j\|}",
    laws=("permutation", "swap", "scale_invariant", "bounded"),
    cost="2 B^2 D FLOPs",
)
similarity_primitive(
    "dot",
    level="pooled",
    normalized=False,
    summary="The inner product of pooled features, without normalisation.",
    formula=r"z_{ij} = x_i^\top y_j",
    laws=("permutation", "swap"),
    cost="2 B^2 D FLOPs",
)


class DistanceParameters(Parameters):
    """Arguments of `euclidean`."""

    reduction: Literal["sum", "mean"] = Field(
        default="sum", description="over the D features: the `sum` of the squares, or their `mean`, D times smaller"
    )


similarity_primitive(
    "euclidean",
    level="pooled",
    normalized=False,
    parameters=DistanceParameters,
    summary="Minus the squared distance of pooled features: 0 for equal ones, otherwise negative.",
    formula=r"z_{ij} = -\|x_i - y_j\|^2",
    laws=("permutation", "swap"),
    cost="2 B^2 D FLOPs",
)
similarity_primitive(
    "tokenmax",
    level="tokens",
    normalized=True,
    summary=(
        "FILIP's late interaction: the maximum similarity of each token; rows average over the first stream's tokens, "
        "columns over the second's. Padding is excluded from maxima and means. With a `share` only the most similar "
        "tokens of each sample can be a maximum, in training; evaluation compares all."
    ),
    parameters=TokenmaxParameters,
    formula=(
        r"z^{\mathrm{row}}_{ij} = \frac{1}{n_i}\sum_{k} \max_{r} v_{ik}^\top w_{jr}, \quad "
        r"z^{\mathrm{column}}_{ij} = \frac{1}{m_j}\sum_{r} \max_{k} v_{ik}^\top w_{jr}"
    ),
    laws=("permutation", "swap", "scale_invariant", "bounded"),
    cost="2 B^2 P L D FLOPs",
)
similarity_primitive(
    "tokenmean",
    level="tokens",
    normalized=True,
    summary="The mean cosine over all pairs of unpadded tokens.",
    formula=r"z_{ij} = \frac{1}{n_i m_j}\sum_{k,r} v_{ik}^\top w_{jr}",
    laws=("permutation", "swap", "scale_invariant", "bounded"),
    cost="2 B^2 D FLOPs",
)
