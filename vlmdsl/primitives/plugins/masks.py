"""Masks of plug-ins: a function that selects tokens of one text, which the workers of a loader call."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.primitives.faults import bad_value
from vlmdsl.primitives.plugins.function import (
    IMPLEMENTATIONS,
    Implementation,
    origin_of,
    parameters_of,
    positional_of,
    summary_of,
    unfit,
)
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive
from vlmdsl.primitives.values import MaskValue, Value

__all__ = ["mask"]

_EXAMPLES = {"Text": "minimize mlm(mask(text, {}(15%)))", "Image": "minimize contrast(drop(image, {}(50%)), text)"}


def mask(function: Implementation, *, takes: tuple[str, ...], formula: str, cost: str, example: str) -> Primitive:
    """The mask that a function makes, of the tokens of a text or of the patches of an image."""
    name, of = function.__name__, "".join(takes) or "Text"
    if of not in _EXAMPLES:
        raise unfit(function, f"is a mask of `{of}`", f"possible: {', '.join(_EXAMPLES)}")
    if len(positional_of(function)) != 2:
        raise unfit(function, "must take two positional parameters: what may be selected, and a random generator")
    parameters = parameters_of(function, Parameters)
    share = parameters.model_fields.get("share")
    if share is None or share.annotation is not float:
        help = "the share that it selects (of tokens on average): as many places are kept for what is predicted"
        raise unfit(function, "has no parameter `share: float`", help)

    def meaning(builder: Builder, subjects: Mapping[str, Value], bound: Parameters) -> Value:
        arguments = bound.model_dump()
        share = float(arguments.pop("share"))
        if not 0 < share <= 1:
            raise bad_value(builder, "share", name, "a mask selects a share above 0 % and up to 100 %")
        return MaskValue(share, builder.draw(), name, tuple(sorted(arguments.items())), of)

    word = register(
        Primitive(
            name=name,
            family="masks",
            summary=summary_of(function),
            meaning=meaning,
            parameters=parameters,
            positional_parameters=("share",),
            formula=formula,
            cost=cost or "none",
            example=example or _EXAMPLES[of].format(name),
            origin=origin_of(function),
        )
    )
    IMPLEMENTATIONS[name] = function
    return word
