"""Schedules: numbers that follow the run, for weights, temperatures and momenta."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.ir.ramps import Duration, Ramp
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import NumberValue, Value


class RampParameters(Parameters):
    """Arguments of `ramp` and `cosine_ramp`."""

    start: float = Field(description="the number before the ramp")
    end: float = Field(description="the number after it")
    name: OptionalName = Field(
        default="", description="its name among the inputs of the objective; by default the name that it is bound to"
    )


def _ramp(
    shape: Literal["linear", "cosine"], builder: Builder, subjects: Mapping[str, Value], parameters: Parameters
) -> Value:
    assert isinstance(parameters, RampParameters)
    over, after = (_duration(builder, subjects[name], name, shape) for name in ("over", "after"))
    ramp = Ramp(shape, float(parameters.start), float(parameters.end), over, after)
    node = builder.ramp(parameters.name, ramp=ramp)
    builder.report(node, node)
    return node


def _duration(builder: Builder, value: Value, argument: str, shape: str) -> Duration:
    """A part of the run; Fault for a negative one, or more than 100 %."""
    reason = "must be a share of the run, such as 10%, a number of steps or a number of epochs"
    if isinstance(value, NumberValue) and not value.is_truth:
        if value.unit == "steps" and value.value >= 0:
            return Duration(value.value, "steps")
        if value.unit == "epochs" and value.value >= 0:
            return Duration(value.value, "epochs")
        if value.unit in ("", "%") and 0 <= value.value <= 1:
            return Duration(value.value, "share")
    function = "ramp" if shape == "linear" else "cosine_ramp"
    raise Fault(BadValue.at(builder.place(argument), argument=argument, function=function, reason=reason))


_SUBJECTS = (
    Subject(
        "over",
        ("Static",),
        "how long it takes: a share of the run, `2k steps` or `1 epochs`; by default the whole run",
        default=NumberValue(1.0),
        keyword=True,
    ),
    Subject("after", ("Static",), "when it begins, in the same units", default=NumberValue(0.0), keyword=True),
)

register(
    Primitive(
        name="ramp",
        family="schedules",
        summary=(
            "A number that goes linearly from `start` to `end` over a part of the run and stays there: a function of the "
            "step, the same on all processes and after a resume."
        ),
        meaning=partial(_ramp, "linear"),
        subjects=_SUBJECTS,
        parameters=RampParameters,
        positional_parameters=("start", "end"),
        formula=r"s + (e - s) \min(\max((n - n_0) / N, 0), 1)",
        cost="none",
        example=(
            "let late = ramp(0, 1, over=10%, after=1 epochs)\n"
            "minimize contrast(image, text) + late * mean(1 - score(image, text))"
        ),
    )
)

register(
    Primitive(
        name="cosine_ramp",
        family="schedules",
        summary="A number that goes from `start` to `end` along half a cosine over a part of the run and stays there.",
        meaning=partial(_ramp, "cosine"),
        subjects=_SUBJECTS,
        parameters=RampParameters,
        positional_parameters=("start", "end"),
        formula=r"s + (e - s) (1 - \cos(\pi \min(\max((n - n_0) / N, 0), 1))) / 2",
        cost="none",
        example="minimize contrast(image, text, temperature=cosine_ramp(0.1, 0.05, over=50%, after=10%))",
    )
)
