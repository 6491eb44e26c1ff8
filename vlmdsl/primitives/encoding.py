"""Primitives on encoders and on the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.ir import Node, Ramp, Teacher, is_condition
from vlmdsl.ir.operations.scalars import RAMP
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, FusionValue, NumberValue, Value
from vlmdsl.types import TableType, TokensType

SMALLEST_LENGTH = 1e-12


def _frozen(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encoder = subjects["encoder"]
    assert isinstance(encoder, EncoderValue)
    heads = tuple(replace(head, frozen=True) for head in encoder.encoder.heads)
    return EncoderValue(replace(encoder.encoder, frozen=True, heads=heads))


register(
    Primitive(
        name="frozen",
        family="encoding",
        summary="The encoder, frozen: no gradient, evaluation mode, not in the optimiser.",
        meaning=_frozen,
        subjects=(Subject("encoder", ("Encoder",), "the encoder to freeze"),),
        formula=r"\mathrm{sg}[f(x)]",
        example="recipe locked(image: Image, text: Text)\nencoder vision = frozen(vision)\nminimize contrast(image, text)",
    )
)


class EmaParameters(Parameters):
    """Arguments of `ema`."""

    schedule: Literal["constant", "cosine", "warm_up"] = Field(
        default="constant",
        description=(
            "`cosine`: the momentum rises from the given one to 1 over the run; `warm_up`: it is (1 + n)/(10 + n) in "
            "step n, at most the given one"
        ),
    )
    order: Literal["before", "after"] = Field(
        default="before",
        description="when the weights are updated: `before` the forward pass, or `after` the optimiser step",
    )


def _ema(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encoder = subjects["encoder"]
    assert isinstance(parameters, EmaParameters)
    momentum = _momentum(builder, subjects["momentum"], parameters.schedule)
    schedule = "ramp" if isinstance(momentum, Ramp) else parameters.schedule
    teacher = Teacher(momentum, schedule, parameters.order)
    if isinstance(encoder, FusionValue):
        return replace(encoder, teacher=teacher)
    assert isinstance(encoder, EncoderValue)
    return EncoderValue(replace(encoder.encoder, teacher=teacher))


def _momentum(builder: Builder, value: Value, schedule: str) -> float | Ramp:
    """A number between 0 and 1, or a schedule between such; Fault for any other."""
    ramp = value.attribute("ramp") if isinstance(value, Node) and value.operation is RAMP else None
    if isinstance(value, NumberValue) and 0.0 <= value.value <= 1.0:
        return float(value.value)
    reason = "must be a number between 0 and 1, or a schedule between such numbers over steps or a share of the run"
    if isinstance(ramp, Ramp):
        units = {each.unit for each in (ramp.over, ramp.after) if each.amount}
        if all(0.0 <= end <= 1.0 for end in (ramp.start, ramp.end)) and "epochs" not in units and schedule == "constant":
            return ramp
        reason = f'is a schedule already, so `schedule="{schedule}"` has no meaning' if schedule != "constant" else reason
    raise Fault(BadValue.at(builder.place("momentum"), argument="momentum", function="ema", reason=reason))


register(
    Primitive(
        name="ema",
        family="encoding",
        summary=(
            "A teacher of the encoder: a copy whose weights are an exponential moving average, without gradient. That of a "
            "fusion module follows its vocabulary too, and is called with a text and its image: `elder(text, image)`."
        ),
        meaning=_ema,
        subjects=(
            Subject("encoder", ("Encoder", "Fusion"), "the encoder or fusion module that the teacher follows"),
            Subject(
                "momentum",
                ("Scalar",),
                "the coefficient of the teacher's weights: a number, or `cosine_ramp(0.99, 1)`",
                default=NumberValue(0.999),
                keyword=True,
            ),
        ),
        parameters=EmaParameters,
        formula=r"\bar{\theta} \leftarrow m\,\bar{\theta} + (1 - m)\,\theta",
        cost="a copy of the weights, and one pass over them per step",
        example=(
            "recipe taught(image: Image, text: Text)\nencoder elder = ema(language, momentum=0.99)\n"
            "minimize contrast(image, elder(text))"
        ),
    )
)


class NormalizeParameters(Parameters):
    """Arguments of `normalize`."""

    epsilon: float = Field(default=0.0, ge=0.0, description="added to each vector's length before dividing by it")
    smallest: float = Field(default=SMALLEST_LENGTH, gt=0.0, description="lower bound on the length that is divided by")


def _normalize(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, NormalizeParameters)
    value = subjects["x"]
    is_tokens = isinstance(value, Node) and isinstance(value.type, TokensType | TableType)
    features = value if is_tokens else builder.pooled(value, "x", "normalize")
    assert isinstance(features, Node)
    attributes: dict[str, object] = {"epsilon": float(parameters.epsilon)}
    if parameters.smallest != SMALLEST_LENGTH:
        attributes["smallest"] = float(parameters.smallest)
    return builder.add("normalize", features, **attributes)


register(
    Primitive(
        name="normalize",
        family="encoding",
        summary="Each vector divided by its length; a zero vector stays zero.",
        meaning=_normalize,
        subjects=(Subject("x", ("Encoded", "Vec", "Tokens", "Table", "Image", "Text", "Concepts"), "features"),),
        parameters=NormalizeParameters,
        laws=("permutation",),
        formula=r"x / \|x\|",
        cost="none",
        example="minimize mean(-score(normalize(image), normalize(text), by=euclidean))",
    )
)


def _gate(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    by, features = subjects["by"], builder.pooled(subjects["x"], "x", "gate")
    assert isinstance(by, Node)
    if is_condition(by):
        by = builder.add("where", by, builder.constant(1.0), builder.constant(0.0))
    return builder.add("gate", features, by)


register(
    Primitive(
        name="gate",
        family="encoding",
        summary=(
            "Each sample's vector times its number, or with a condition the vector where it holds and zero elsewhere: a "
            "zero vector is still a candidate, with similarity 0."
        ),
        meaning=_gate,
        subjects=(
            Subject("x", ("Encoded", "Vec", "Image", "Text"), "features"),
            Subject(
                "by",
                ("Score", "Condition"),
                "the number of each sample, or the samples that keep their vector",
                keyword=True,
            ),
        ),
        laws=("permutation",),
        formula=r"g_i \, x_i",
        cost="none",
        example=(
            "recipe gated(image: Image, text: Text, valid: Flag)\n"
            "minimize contrast(gate(image, by=valid), gate(text, by=valid), sim=cosine(epsilon=1e-8), temperature=0.5)"
        ),
    )
)


def _pooling(name: str, by: str, summary: str, formula: str, example: str) -> None:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        return builder.add("reduce_tokens", builder.tokens(subjects["x"], "x", name), by=by)

    register(
        Primitive(
            name=name,
            family="encoding",
            summary=summary,
            meaning=meaning,
            subjects=(Subject("x", ("Encoded", "Tokens", "Image", "Text"), "token features"),),
            laws=("permutation",),
            formula=formula,
            cost="none",
            example=example,
        )
    )


_pooling(
    "max_pool",
    "max",
    "One vector per sample: the largest entry of each feature over the sample's tokens, as CLIPpy pools patches.",
    r"\max_k x_{ik}",
    "contrast(max_pool(image), text)",
)
_pooling(
    "mean_pool",
    "mean",
    "One vector per sample: the mean of its token features, padding excluded.",
    r"\frac{1}{n_i} \sum_k x_{ik}",
    "contrast(mean_pool(image), mean_pool(text))",
)


_STOPPED = ("Encoded", "Vec", "Tokens", "Distribution", "Sim", "Alignment", "Score", "Scalar", "Image", "Text")


def _stop(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    value = builder.encoded(subjects["x"], "x")
    if isinstance(value, NumberValue):
        return value
    assert isinstance(value, Node)
    return builder.add("stop", value)


register(
    Primitive(
        name="stop",
        family="encoding",
        summary="The value without its gradient.",
        meaning=_stop,
        subjects=(Subject("x", _STOPPED, "the value"),),
        formula=r"\mathrm{sg}[x]",
        example="contrast(image, stop(text))",
    )
)
