"""Similarities of plug-ins: `(x, y, **arguments) -> matrix`."""

from __future__ import annotations

from vlmdsl.primitives.plugins.function import (
    IMPLEMENTATIONS,
    Implementation,
    origin_of,
    parameters_of,
    positional_of,
    summary_of,
    unfit,
)
from vlmdsl.primitives.similarities import UnitParameters, similarity_primitive
from vlmdsl.primitives.spec import Law, Parameters, Primitive

__all__ = ["similarity"]


def similarity(
    function: Implementation, *, level: str, normalized: bool, formula: str, laws: tuple[Law, ...], cost: str, example: str
) -> Primitive:
    """The similarity that a function computes: x [R, D] and y [C, D] give [R, C]; of tokens see `primitive`."""
    if len(positional_of(function)) != 2:
        raise unfit(function, "must take two positional parameters, the rows and the columns")
    word = similarity_primitive(
        function.__name__,
        level=level,
        normalized=normalized,
        summary=summary_of(function),
        formula=formula,
        laws=laws,
        parameters=parameters_of(function, UnitParameters if normalized else Parameters),
        cost=cost,
        example=example,
        origin=origin_of(function),
    )
    IMPLEMENTATIONS[word.name] = function
    return word
