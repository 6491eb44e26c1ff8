"""Numbers drawn once per step, and mixtures by them: of samples with others of the batch, of images with their texts."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import WrongType
from vlmdsl.diagnostics.catalog.values import BoundsDisagree
from vlmdsl.ir import Node, walk
from vlmdsl.ir.operations.scalars import CONSTANT, DRAW, RAMP
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.targets import BlockParameters
from vlmdsl.primitives.values import NumberValue, Value
from vlmdsl.types import FieldType

_NAME = "its name among the inputs of the objective; by default the name that it is bound to"


class BetaParameters(Parameters):
    """Arguments of `beta`."""

    a: float = Field(gt=0.0, description="the parameter alpha, the weight towards 1")
    b: float = Field(gt=0.0, description="the parameter beta, the weight towards 0")
    name: OptionalName = Field(default="", description=_NAME)


def _beta(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, BetaParameters)
    return _reported(builder, parameters.name, "beta", (float(parameters.a), float(parameters.b)))


def _reported(builder: Builder, name: str, distribution: str, arguments: tuple[float, float]) -> Node:
    drawn = builder.drawn(name, distribution=distribution, arguments=arguments)
    builder.report(drawn, drawn)
    return drawn


register(
    Primitive(
        name="beta",
        family="draws",
        summary="A number drawn once per step from a Beta distribution, the same for all samples and processes.",
        meaning=_beta,
        parameters=BetaParameters,
        positional_parameters=("a", "b"),
        formula=r"\lambda \sim \mathrm{Beta}(a, b)",
        cost="none",
        example=(
            "let lam = beta(0.1, 0.1)\n"
            "minimize contrast(image, mix(text, by=lam), targets=lam * paired + (1 - lam) * flipped, temperature=0.07)"
        ),
    )
)


class UniformParameters(Parameters):
    """Arguments of `uniform`."""

    low: float = Field(default=0.0, description="the lower bound")
    high: float = Field(default=1.0, description="the upper bound, excluded")
    name: OptionalName = Field(default="", description=_NAME)


def _uniform(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, UniformParameters)
    if parameters.low >= parameters.high:
        raise Fault(BoundsDisagree.at(builder.span, reason="`uniform` needs `low` less than `high`"))
    return _reported(builder, parameters.name, "uniform", (float(parameters.low), float(parameters.high)))


register(
    Primitive(
        name="uniform",
        family="draws",
        summary="A number drawn once per step, uniformly between two bounds, the same for all samples and processes.",
        meaning=_uniform,
        parameters=UniformParameters,
        positional_parameters=("low", "high"),
        formula=r"u \sim \mathcal{U}(l, h)",
        cost="none",
        example=(
            "let coin = uniform(0, 1)\nminimize contrast(image, mix(text, by=where(coin < 0.5, 0.7, 1)), temperature=0.07)"
        ),
    )
)


def _mix(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, BlockParameters)
    x, by = subjects["x"], subjects["by"]
    assert isinstance(x, Node)
    if x.type == FieldType("Image"):
        return builder.add("mix", x, _early_share(builder, by, "mix"), **parameters.attributes)
    return builder.add("mix", builder.pooled(x, "x", "mix"), _share(builder, by), **parameters.attributes)


def _share(builder: Builder, by: Value) -> Node:
    share = builder.constant(by.value) if isinstance(by, NumberValue) else by
    assert isinstance(share, Node)
    return share


def _early_share(builder: Builder, by: Value, function: str) -> Node:
    """The share of a mixture of fields; Fault for one that depends on features or learned parameters."""
    share = _share(builder, by)
    if any(node.operation not in (CONSTANT, DRAW, RAMP) for node in walk([share]) if not node.inputs):
        expected = "a number of draws, schedules and constants only, since images are mixed before they are encoded"
        place = builder.place("by")
        raise Fault(WrongType.at(place, argument="by", function=function, wanted=expected, found=share.type), share)
    return share


register(
    Primitive(
        name="mix",
        family="draws",
        summary=(
            "Each sample mixed with its partner in the reversed global batch: the pixels of an Image "
            "before it is encoded, else the features. `by` is the share of the sample itself; the matching target is "
            "`by * paired + (1 - by) * flipped`, with the same `block`."
        ),
        meaning=_mix,
        subjects=(
            Subject("x", ("Image", "Text", "Encoded", "Vec"), "an image (its pixels are mixed), or features"),
            Subject("by", ("Scalar",), "the share of the sample itself", keyword=True),
        ),
        parameters=BlockParameters,
        formula=r"\lambda\, x_i + (1 - \lambda)\, x_{B + 1 - i}",
        cost="on several processes, an exchange of the samples whose partner is on another one",
        example=(
            "let lam = beta(1, 1)\n"
            "minimize contrast(mix(image, by=lam), text, targets=lam * paired + (1 - lam) * flipped, temperature=0.07)"
        ),
    )
)


def _blend(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image, text = subjects["image"], subjects["text"]
    assert isinstance(image, Node)
    assert isinstance(text, Node)
    return builder.add("blend", image, text, _early_share(builder, subjects["by"], "blend"))


register(
    Primitive(
        name="blend",
        family="draws",
        summary=(
            "An image blended with its text, patch k with token k, in one sequence for a shared tower: `by` is the share "
            "of the image in each position's embedding. Where only one of them has a token, the position is that token, and "
            "its share is its weight in attention: with 1 the tower sees the image alone, with 0 the text."
        ),
        meaning=_blend,
        subjects=(
            Subject("image", ("Image",), "the image, or a view of it"),
            Subject("text", ("Text",), "the text, or a view of it"),
            Subject("by", ("Scalar",), "the share of the image", keyword=True),
        ),
        formula=r"\lambda\, x_k + (1 - \lambda)\, t_k",
        cost="as many tokens as the longer of the two has",
        example=(
            "recipe blended(image: Image, text: Text)\nencoder one = shared(vision, language)\nlet lam = beta(1, 1)\n"
            "let both = one(blend(image, text, by=lam))\n"
            "minimize lam * contrast(both, one(image)) + (1 - lam) * contrast(both, one(text))"
        ),
    )
)
