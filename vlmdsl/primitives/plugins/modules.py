"""Modules of plug-ins: families of towers, named in a run configuration (`model.image_encoder=NAME:PRESET`)."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.primitives.plugins.function import Implementation, origin_of, positional_of, summary_of, unfit

__all__ = ["MODULES", "ModuleFamily", "module"]

_TAKEN_BY_TOWERS = ("Image", "Text")


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
    if len(takes) != 1 or takes[0] not in _TAKEN_BY_TOWERS:
        raise unfit(function, "does not say what it encodes", 'write `takes=("Image",)` or `takes=("Text",)`')
    if len(positional_of(function)) != 1:
        raise unfit(function, "must take one positional parameter, the request (`runtime.modules.towers.Request`)")
    family = ModuleFamily(function.__name__, takes[0], summary_of(function), function, origin_of(function))
    defined = MODULES.get((family.name, family.takes))
    if defined is not None and defined.origin != family.origin:
        raise unfit(function, f"has the name of a module of {defined.origin}", "give the function another name")
    MODULES[family.name, family.takes] = family
    return family
