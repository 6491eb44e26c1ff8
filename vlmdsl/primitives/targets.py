"""Primitives for targets: the distribution that each row, and each column, should predict, normalised separately."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import AxesDisagree
from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import NumberValue, TupleValue, Value
from vlmdsl.types import LabelsType, TargetType


def _paired(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    return builder.add("paired")


register(
    Primitive(
        name="paired",
        family="targets",
        summary="The positive of row i is column i.",
        meaning=_paired,
        formula=r"P_{ij} = [i = j]",
        example="contrast(image, text, targets=paired)",
    )
)


class BlockParameters(Parameters):
    """The block that `flipped` and `mix` reverse."""

    block: int = Field(
        default=0,
        ge=0,
        description=(
            "number of consecutive samples of the global batch in each block that is reversed, the "
            "last with the remaining ones; 0: the whole batch"
        ),
    )

    @property
    def attributes(self) -> dict[str, int]:
        """The attributes of a node: none for the whole batch."""
        return {"block": self.block} if self.block else {}


def _flipped(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, BlockParameters)
    return builder.add("flipped", **parameters.attributes)


register(
    Primitive(
        name="flipped",
        family="targets",
        summary=(
            "The positive of row i is its partner in the reversed global batch: the other part of "
            "a mixture with the flipped batch (of an odd batch the middle sample is its own partner). With `block`, in the "
            "reversed block of consecutive samples."
        ),
        meaning=_flipped,
        parameters=BlockParameters,
        formula=r"P_{ij} = [i + j = B + 1]",
        example="contrast(image, text, targets=0.7 * paired + 0.3 * flipped)",
    )
)


class SameParameters(Parameters):
    """Arguments of `same`."""

    missing: int = Field(default=-1, description="the label that marks a missing one: such a sample has no other positives")


def _same(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    label, earlier = subjects["label"], subjects["earlier"]
    assert isinstance(label, Node)
    assert isinstance(parameters, SameParameters)
    if not isinstance(earlier, Node):
        return builder.add("same", label, missing=parameters.missing)
    assert isinstance(earlier.type, LabelsType)
    return builder.add("same", label, earlier, missing=parameters.missing)


register(
    Primitive(
        name="same",
        family="targets",
        summary=(
            "All samples with the same label are positives, with equal shares, across processes too. With `earlier`, the "
            "entries of a queue with the same label are positives too: the target is over the columns of the batch "
            "followed by those of the queue."
        ),
        meaning=_same,
        subjects=(
            Subject("label", ("Label",), "the class of each sample"),
            Subject("earlier", ("Labels",), "the classes of the entries of a queue", default=TupleValue(()), keyword=True),
        ),
        parameters=SameParameters,
        laws=("permutation",),
        formula=r"P_{ij} = \frac{[y_i = y_j]}{|\{k : y_k = y_i\}|}",
        cost="none",
        example="recipe labels(image: Image, text: Text, label: Label)\nminimize contrast(image, text, targets=same(label))",
    )
)


class SmoothParameters(Parameters):
    """Arguments of `smooth`."""

    over: Literal["all", "others"] = Field(
        default="all", description="`all`: epsilon is spread over all N candidates; `others`: over the N - 1 others only"
    )


def _smooth(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    target = subjects["target"]
    assert isinstance(target, Node)
    assert isinstance(parameters, SmoothParameters)
    if target.type != TargetType():
        raise Fault(AxesDisagree.at(builder.place("target"), str(target.type), left=TargetType(), right=target.type), target)
    epsilon = subjects["epsilon"]
    if isinstance(epsilon, Node):
        return builder.add("smooth", target, epsilon, over=parameters.over)
    assert isinstance(epsilon, NumberValue)
    if not 0.0 <= epsilon.value <= 1.0:
        reason = "must be between 0 and 1"
        raise Fault(BadValue.at(builder.place("epsilon"), argument="epsilon", function="smooth", reason=reason), target)
    if epsilon.value == 0.0:
        return target
    return builder.add("smooth", target, epsilon=float(epsilon.value), over=parameters.over)


register(
    Primitive(
        name="smooth",
        family="targets",
        summary=(
            "Label smoothing: the mass epsilon of each target is spread uniformly. With a score as epsilon each sample has "
            "a mass of its own, in its row and in its column alike: more for a noisy pair."
        ),
        meaning=_smooth,
        subjects=(
            Subject("target", ("Target",), "the target to smooth"),
            Subject(
                "epsilon",
                ("Scalar", "Score"),
                "the mass that is spread, between 0 and 1: a number, a schedule, or a number per sample",
                default=NumberValue(0.1),
                keyword=True,
            ),
        ),
        parameters=SmoothParameters,
        laws=("permutation",),
        formula=r"(1 - \epsilon) P_{ij} + \epsilon / N",
        cost="none",
        example="contrast(image, text, targets=smooth(paired, epsilon=0.1))",
    )
)
