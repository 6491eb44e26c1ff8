"""Primitives with state, which outlives the step: a start value, an order against use, a place in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import ScalarType


class RunningMeanParameters(Parameters):
    """Arguments of `running_mean`."""

    momentum: float = Field(default=0.99, ge=0.0, le=1.0, description="the share of the mean so far")
    start: float = Field(default=1.0, description="the mean before the first step")
    name: str = Field(default="", description="its name in the checkpoint; by default the name it is bound to")


def _running_mean(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    score = subjects["score"]
    assert isinstance(score, Node)
    assert isinstance(parameters, RunningMeanParameters)
    before = builder.state(parameters.name, initial=parameters.start)
    if score.operation != "stop":
        score = builder.add("stop", score, type=score.type)
    after = builder.add("running_mean", before, score, type=ScalarType(), momentum=parameters.momentum)
    builder.update(before, after)
    builder.report(before, after)
    return after


register(
    Primitive(
        name="running_mean",
        family="scores",
        summary="The mean of a score over the steps so far; the whole batch's enters before it is read, without gradient.",
        meaning=_running_mean,
        subjects=(Subject("score", ("Score",), "one number a sample"),),
        parameters=RunningMeanParameters,
        laws=("permutation",),
        formula=r"\mu \leftarrow m\,\mu + (1 - m) \frac{1}{B}\sum_i s_i",
        cost="none",
        example=(
            "let s = stop(score(image, text))\nminimize contrast(image, text, weight=exp(s - running_mean(s, momentum=0.9)))"
        ),
    )
)
