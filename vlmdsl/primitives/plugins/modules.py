"""Modules of plug-ins: families of towers, named in a run configuration (`model.image_encoder=NAME:PRESET`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from vlmdsl.ir import Encoder
from vlmdsl.primitives.plugins.function import Implementation, origin_of, positional_of, summary_of, unfit
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, OptionalName, Parameters, Primitive
from vlmdsl.primitives.values import EncoderValue, Value
from vlmdsl.types import FIELD_KINDS

__all__ = ["MODULES", "ModuleFamily", "module"]

_WITH_DEFAULT_TOWERS = ("Image", "Text")
"""The kinds whose fields have a tower in every recipe; for others a recipe names one."""


@dataclass(frozen=True, slots=True)
class ModuleFamily:
    """A family of modules: `factory(request)` builds one, an `nn.Module` that fulfils `runtime.modules.towers.Encoder`."""

    name: str
    takes: str
    """The kind of field that it encodes."""
    summary: str
    factory: Implementation
    origin: str


MODULES: dict[tuple[str, str], ModuleFamily] = {}
"""The families of plug-ins, by name and by the kind of field that they encode."""


def module(function: Implementation, *, takes: tuple[str, ...]) -> ModuleFamily:
    """The family of modules that a function builds."""
    if len(takes) != 1:
        raise unfit(function, "does not say what it encodes", 'write `takes=("Image",)` or `takes=("Text",)`')
    if takes[0] not in FIELD_KINDS or FIELD_KINDS[takes[0]].token_axis is None:
        help = 'register the kind first: `vlmdsl.types.register_field_kind(FieldKind(..., token_axis="S"))`'
        raise unfit(function, f"encodes `{takes[0]}`, which is not a kind of field that towers take", help)
    if len(positional_of(function)) != 1:
        raise unfit(function, "must take one positional parameter, the request (`runtime.modules.towers.Request`)")
    family = ModuleFamily(function.__name__, takes[0], summary_of(function), function, origin_of(function))
    defined = MODULES.get((family.name, family.takes))
    if defined is not None and defined.origin != family.origin:
        raise unfit(function, f"has the name of a module of {defined.origin}", "give the function another name")
    if family.takes not in _WITH_DEFAULT_TOWERS:
        _register_word(family)
    MODULES[family.name, family.takes] = family
    return family


class TowerParameters(Parameters):
    """The argument of the word that stands for a tower."""

    name: OptionalName = Field(default="", description="the tower's name, by default that of its family")


def _register_word(family: ModuleFamily) -> None:
    """`encoder NAME = FAMILY()`: how a recipe gets a tower for a kind of field that has no default one."""

    def meaning(builder: Builder, subjects: Mapping[str, Value], bound: Parameters) -> Value:
        assert isinstance(bound, TowerParameters)
        return EncoderValue(Encoder(bound.name or family.name, family.takes))

    register(
        Primitive(
            name=family.name,
            family="towers",
            summary=family.summary,
            meaning=meaning,
            parameters=TowerParameters,
            formula=r"f(x)",
            example=f"recipe encoded(x: {family.takes}, text: Text)\nminimize contrast({family.name}()(x), text)",
            origin=family.origin,
        )
    )
