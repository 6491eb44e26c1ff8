"""The decorator that makes a function a primitive of the language, with type checks, documentation and law tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from vlmdsl.primitives.plugins.function import Implementation, unfit
from vlmdsl.primitives.plugins.fusion import fusion
from vlmdsl.primitives.plugins.masks import mask
from vlmdsl.primitives.plugins.modules import ModuleFamily, module
from vlmdsl.primitives.plugins.operations import Declaration, criterion, target
from vlmdsl.primitives.plugins.similarities import similarity
from vlmdsl.primitives.plugins.token_criteria import TOKEN_KINDS, token_criterion
from vlmdsl.primitives.spec import Law, Primitive

__all__ = ["primitive"]

_OPERATIONS = {"criterion": criterion, "target": target}
"""The kinds that are operations of the graph."""

Kind = Literal["similarity", "criterion", "target", "mask", "fusion"]


@overload
def primitive(
    *,
    kind: Kind = "similarity",
    takes: tuple[str, ...] = (),
    level: Literal["pooled", "tokens"] = "pooled",
    normalized: bool = False,
    formula: str = "",
    laws: tuple[Law, ...] = ("permutation",),
    cost: str = "",
    example: str = "",
) -> Callable[[Implementation], Primitive]: ...


@overload
def primitive(*, kind: Literal["module"], takes: tuple[str, ...]) -> Callable[[Implementation], ModuleFamily]: ...


def primitive(
    *,
    kind: str = "similarity",
    takes: tuple[str, ...] = (),
    level: str = "pooled",
    normalized: bool = False,
    formula: str = "",
    laws: tuple[Law, ...] = ("permutation",),
    cost: str = "",
    example: str = "",
) -> Callable[[Implementation], Any]:
    """Make a function a primitive of the language, under its own name; `vlmdsl.primitives.plugins` describes the kinds.

    Its positional parameters are its inputs, of the kinds that `takes` names; with `normalized` they are unit vectors.
    Keyword-only parameters become arguments in recipes and need an annotation with a plain type (int, float, str, bool,
    Literal) and a default. The first line of the docstring is the summary, `formula` the LaTeX formula.
    `vlmdsl.testing.check_primitive` tests the `laws`. Functions of tensors run under `torch.compile` and must be
    differentiable; their outputs are checked when a recipe that uses them is compiled.

    DiagnosticError (V0216) for a function that does not fit; ValueError for a name that another distribution has taken.

    >>> import vlmdsl
    >>> @vlmdsl.primitive(normalized=True, laws=("permutation", "swap"), formula=r"(x_i^\\top y_j)^p")
    ... def power_cosine(x, y, *, power: int = 3):
    ...     '''An odd power of the cosine, which sharpens it.'''
    ...     return (x @ y.T) ** power
    >>> vlmdsl.check("contrast(image, text, sim=power_cosine(power=5))")
    []
    >>> @vlmdsl.primitive(kind="criterion", takes=("Vec", "Vec"), normalized=True)
    ... def nearness(x, y, *, margin: float = 0.9):
    ...     '''By how much the cosine of a pair falls short of a margin.'''
    ...     return (margin - (x * y).sum(1)).clamp(min=0)
    >>> vlmdsl.check("mean(nearness(image, text, margin=0.5))")
    []
    """

    def register(function: Implementation) -> Primitive | ModuleFamily:
        if kind == "module":
            return module(function, takes=takes)
        if kind == "mask":
            return mask(function, takes=takes, formula=formula, cost=cost, example=example)
        if kind == "fusion":
            return fusion(function, formula=formula, cost=cost, example=example)
        if kind == "similarity":
            options: dict[str, Any] = {"level": level, "formula": formula, "laws": laws, "cost": cost, "example": example}
            return similarity(function, normalized=normalized, **options)
        if kind not in _OPERATIONS:
            possible = ", ".join(["similarity", *_OPERATIONS, "mask", "fusion", "module"])
            raise unfit(function, f"is of the unknown kind `{kind}`", f"possible: {possible}")
        declared = Declaration(takes, normalized, formula, laws, cost, example)
        if kind == "criterion" and set(takes) & set(TOKEN_KINDS):
            return token_criterion(function, declared)
        return _OPERATIONS[kind](function, declared)

    return register
