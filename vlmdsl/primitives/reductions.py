"""Primitives that reduce one number per sample to one number per batch, and the size of the batch."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import AllSamples, Value

_SCORE_AND_CONDITION = (
    Subject("score", ("Score",), "one number per sample"),
    Subject("over", ("Condition",), "which samples count", default=AllSamples(), keyword=True),
)


def _conditions(over: Value) -> tuple[Node, ...]:
    if isinstance(over, AllSamples):
        return ()
    assert isinstance(over, Node)
    return (over,)


def _mean(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    score = subjects["score"]
    assert isinstance(score, Node)
    return builder.add("mean", score, *_conditions(subjects["over"]))


register(
    Primitive(
        name="mean",
        family="reductions",
        summary="The mean over the samples of the global batch, or over those where `over` holds (0 if none).",
        meaning=_mean,
        subjects=_SCORE_AND_CONDITION,
        laws=("permutation",),
        formula=r"\frac{1}{B}\sum_i s_i",
        cost="none",
        example="minimize mean(1 - score(image, text))",
    )
)


def _sum(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    """The mean times the number of samples: losses keep one canonical form."""
    size = builder.add("samples", *_conditions(subjects["over"]))
    mean = _mean(builder, subjects, parameters)
    assert isinstance(mean, Node)
    return builder.add("multiply", size, mean)


register(
    Primitive(
        name="sum",
        family="reductions",
        summary="The sum over the samples of the global batch, or over those where `over` holds.",
        meaning=_sum,
        subjects=_SCORE_AND_CONDITION,
        laws=("permutation",),
        formula=r"\sum_i s_i",
        cost="none",
        example="minimize sum(1 - score(image, text))",
    )
)


def _samples(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    return builder.add("samples", *_conditions(subjects["over"]))


register(
    Primitive(
        name="samples",
        family="reductions",
        summary="The number of samples in the global batch, or of those where `over` holds.",
        meaning=_samples,
        subjects=(_SCORE_AND_CONDITION[1],),
        laws=("permutation",),
        formula=r"B",
        cost="none",
        example="contrast(image, text, temperature=learned(0.07)) / samples",
    )
)
