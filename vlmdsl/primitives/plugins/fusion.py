"""Fusion modules of plug-ins: functions that build what encodes a text given an image, `text | image`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

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
from vlmdsl.primitives.spec import Builder, GivenName, Parameters, Primitive
from vlmdsl.primitives.values import FusionValue, Value

__all__ = ["fusion"]


class FusionParameters(Parameters):
    """The argument that every fusion module of a plug-in has."""

    name: GivenName = Field(default="fusion", description="its name in checkpoints; modules of one name are one")


def fusion(function: Implementation, *, formula: str, cost: str, example: str) -> Primitive:
    """The word that makes the module of a function the recipe's fusion: `encoder fusion = NAME(...)`."""
    name = function.__name__
    if len(positional_of(function)) != 2:
        raise unfit(function, "must take two positional parameters: the widths of the text's states and of the image's")
    parameters = parameters_of(function, FusionParameters)

    def meaning(builder: Builder, subjects: Mapping[str, Value], bound: Parameters) -> Value:
        from vlmdsl.ir.modules import PluginFusionSettings  # few recipes apply modules, and classes take time to make

        arguments = bound.model_dump(exclude_defaults=True)
        arguments.pop("name", None)
        assert isinstance(bound, FusionParameters)
        return FusionValue(bound.name, PluginFusionSettings(name, tuple(sorted(arguments.items()))))

    header = f"recipe fused(image: Image, text: Text)\nencoder fusion = {name}()"
    usual = f"{header}\nminimize mlm(mask(text, random(15%)) | image)"
    word = register(
        Primitive(
            name=name,
            family="fusion",
            summary=summary_of(function),
            meaning=meaning,
            parameters=parameters,
            formula=formula,
            cost=cost,
            example=example or usual,
            origin=origin_of(function),
        )
    )
    IMPLEMENTATIONS[name] = function
    return word
