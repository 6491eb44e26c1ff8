"""Primitives on similarity matrices: computing, transposing and masking them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import ColumnsOfSeveralKinds, WrongType
from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.similarities import COSINE, apply_similarity, paired_score
from vlmdsl.primitives.spec import Builder, Fault, Meaning, Parameters, Primitive, Subject
from vlmdsl.primitives.values import AllSamples, FunctionValue, SimilarityValue, Value
from vlmdsl.types import SimType

_STREAM = ("Encoded", "Vec", "Tokens", "Image", "Text")


def _similarity(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    by = subjects["by"]
    if isinstance(by, FunctionValue):
        return builder.call(by, (subjects["a"], subjects["b"]))
    assert isinstance(by, SimilarityValue)
    return apply_similarity(builder, by, subjects["a"], subjects["b"])


register(
    Primitive(
        name="similarity",
        family="matrix level",
        summary="The matrix of similarities between every row of `a` and every column of `b`.",
        meaning=_similarity,
        subjects=(
            Subject("a", _STREAM, "the rows"),
            Subject("b", (*_STREAM, "Memory"), "the columns; those of a queue are its entries"),
            Subject("by", ("Similarity", "Function"), "the similarity that compares them", default=COSINE, keyword=True),
        ),
        laws=("permutation",),
        formula=r"z_{ij} = \mathrm{by}(a_i, b_j)",
        cost="that of the similarity",
        example=('let z = similarity(image, text) / 0.07\nminimize mean(cross_entropy(z, targets=paired, along="rows"))'),
    )
)


def _score(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    by = subjects["by"]
    assert isinstance(by, SimilarityValue)
    return paired_score(builder, by, subjects["a"], subjects["b"])


register(
    Primitive(
        name="score",
        family="matrix level",
        summary="The similarity of each pair, without the matrix.",
        meaning=_score,
        subjects=(
            Subject("a", _STREAM, "one stream"),
            Subject("b", _STREAM, "the other"),
            Subject("by", ("Similarity",), "the similarity that compares them", default=COSINE, keyword=True),
        ),
        laws=("permutation",),
        formula=r"s_i = \mathrm{by}(a_i, b_i)",
        cost="2 B D FLOPs",
        example="contrast(image, text, weight=exp(score(stop(image), stop(text))))",
    )
)


def of_batch(builder: Builder, value: Value, argument: str, function: str) -> Node:
    """A matrix of samples against samples, perhaps with more columns; Fault for one that begins with a queue."""
    assert isinstance(value, Node)
    assert isinstance(value.type, SimType)
    if value.type.columns.split("+")[0] == value.type.rows:
        return value
    actual, expected = value.type, "a matrix of samples against samples"
    place = builder.place(argument)
    raise Fault(WrongType.at(place, str(actual), argument=argument, function=function, wanted=expected, found=actual), value)


def check_one_kind(builder: Builder, matrix: Node, function: str, argument: str) -> None:
    """Fault unless all columns are of one kind, as the column direction requires."""
    assert isinstance(matrix.type, SimType)
    if "+" in matrix.type.columns:
        place = builder.place(argument)
        raise Fault(ColumnsOfSeveralKinds.at(place, str(matrix.type), function=function, type=matrix.type), matrix)


def _transpose(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    matrix = of_batch(builder, subjects["matrix"], "matrix", "transpose")
    assert isinstance(matrix.type, SimType)
    check_one_kind(builder, matrix, "transpose", "matrix")
    return builder.add("transpose", matrix)


register(
    Primitive(
        name="transpose",
        family="matrix level",
        summary="The transposed matrix; its two directions are swapped.",
        meaning=_transpose,
        subjects=(Subject("matrix", ("Sim",), "the matrix"),),
        laws=("permutation",),
        formula=r"z^\top",
        cost="none",
        example='minimize mean(cross_entropy(transpose(similarity(image, text)), targets=paired, along="rows"))',
    )
)


class ReuseParameters(Parameters):
    """Arguments of `reuse`."""

    matrix: Literal["rows", "columns"] = Field(description="the matrix that both directions use")


def _reuse(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    matrix = of_batch(builder, subjects["matrix_of"], "matrix_of", "reuse")
    assert isinstance(parameters, ReuseParameters)
    return builder.add("reuse", matrix, matrix=parameters.matrix)


register(
    Primitive(
        name="reuse",
        family="matrix level",
        summary="For a similarity with two matrices (tokenmax): both directions use one of them.",
        meaning=_reuse,
        subjects=(Subject("matrix_of", ("Sim",), "the similarity"),),
        parameters=ReuseParameters,
        laws=("permutation",),
        formula=r"z^{\mathrm{row}} = z^{\mathrm{column}}",
        cost="none",
        example=(
            'let z = reuse(similarity(image, text, by=tokenmax), matrix="rows")\n'
            'minimize mean(cross_entropy(z / 0.07, targets=paired, along="columns"))'
        ),
    )
)


def _of_rows(operation: str) -> Meaning:
    """One number per row."""

    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        matrix = subjects["matrix"]
        assert isinstance(matrix, Node)
        assert isinstance(matrix.type, SimType)
        return builder.add(operation, matrix)

    return meaning


_CYCLE = "let z = similarity(image, text)\nlet apart = z - transpose(z)\n"

for _name, _word, _formula in (
    ("row_sum", "sum", r"\sum_j z_{ij}"),
    ("row_mean", "mean", r"\frac{1}{N_i} \sum_j z_{ij}"),
):
    register(
        Primitive(
            name=_name,
            family="matrix level",
            summary=(
                f"The {_word} of each row over its candidates, 0 without any; for columns, `transpose` the matrix. "
                "Excluded entries do not count."
            ),
            meaning=_of_rows(_name),
            subjects=(Subject("matrix", ("Sim",), "the matrix"),),
            laws=("permutation",),
            formula=_formula,
            cost="no matrix product; one pass over the matrix",
            example=f"{_CYCLE}minimize contrast(image, text) + 0.25 * mean({_name}(square(apart)))",
        )
    )


def _restrict(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits, condition = subjects["logits"], subjects["to"]
    assert isinstance(logits, Node)
    if isinstance(condition, AllSamples):
        return logits
    assert isinstance(condition, Node)
    logits = of_batch(builder, logits, "logits", "restrict")
    return builder.add("exclude", logits, builder.add("not", condition))


register(
    Primitive(
        name="restrict",
        family="matrix level",
        summary="Only samples for which the condition holds are candidates, in either direction.",
        meaning=_restrict,
        subjects=(
            Subject("logits", ("Sim",), "the matrix"),
            Subject("to", ("Condition",), "the samples that remain candidates", keyword=True),
        ),
        laws=("permutation",),
        formula=r"z_{ij} = -\infty \quad \text{unless } j \text{ is kept}",
        cost="none",
        example=(
            "recipe masked(image: Image, text: Text, valid: Flag)\n"
            "let z = restrict(similarity(image, text) / 0.07, to=valid)\n"
            'minimize mean(cross_entropy(z, targets=paired, along="rows"), over=valid)'
        ),
    )
)
