"""The arguments of losses that are means over the tokens, patches or pairs of samples: which samples count, and how much."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.ir import Node
from vlmdsl.primitives.spec import Builder, Fault, Subject
from vlmdsl.primitives.values import AllSamples, NumberValue, Value
from vlmdsl.types import ScalarType

__all__ = ["SAMPLES", "chosen_samples", "without_samples"]

SAMPLES = (
    Subject("where", ("Condition", "Flag"), "the samples that count", AllSamples(), keyword=True),
    Subject(
        "weight",
        ("Score", "Scalar"),
        "how much each sample counts, at least 0: the loss is the weighted mean, divided by the sum of the weights",
        NumberValue(1.0, is_integer=True),
        keyword=True,
    ),
)
"""Subjects of such a loss. The inputs that `chosen_samples` gives follow those of the operation (`samples_after`)."""


def without_samples(subjects: Mapping[str, Value]) -> dict[str, Value]:
    """The other arguments of a call."""
    return {name: value for name, value in subjects.items() if name not in ("where", "weight")}


def chosen_samples(builder: Builder, subjects: Mapping[str, Value], function: str) -> tuple[Node, ...]:
    """The condition and the weight of each sample, where the call gives them; Fault for one weight of all samples."""
    where, weight = subjects["where"], subjects["weight"]
    chosen = (where,) if isinstance(where, Node) else ()
    if isinstance(weight, Node) and weight.type != ScalarType():
        return (*chosen, weight)
    if not isinstance(weight, NumberValue) or weight.value != 1.0 or weight.is_truth:
        reason = "one number for all samples cancels out, since the loss is divided by the sum of the weights"
        help = f"multiply the loss by it, `NUMBER * {function}(...)`, or give a number per sample"
        place = builder.place("weight")
        raise Fault(BadValue.at(place, help=(help,), argument="weight", function=function, reason=reason), weight)
    return chosen
