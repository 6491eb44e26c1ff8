"""`@vlmdsl.primitive`: a similarity from outside the package, with type checking, documentation and law tests for free."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, get_type_hints

from pydantic import create_model

from vlmdsl.primitives.similarities import UnitParameters, similarity_primitive
from vlmdsl.primitives.spec import Law, Parameters, Primitive

__all__ = ["IMPLEMENTATIONS", "primitive"]

Implementation = Callable[..., Any]
"""`(x, y, **arguments) -> matrix`: x [R, D] and y [C, D] give [R, C]. A similarity of tokens gets `TokenFeatures`, with
`values` [R, L, D] and `mask` [R, L] (None: all are tokens), and may give a pair (rows, columns) of matrices."""

IMPLEMENTATIONS: dict[str, Implementation] = {}
"""The torch functions of plug-in similarities, by name; read by the torch back end when it meets one."""


def primitive(
    *,
    level: Literal["pooled", "tokens"] = "pooled",
    normalized: bool = False,
    formula: str = "",
    laws: tuple[Law, ...] = ("permutation",),
    cost: str = "",
    example: str = "",
) -> Callable[[Implementation], Primitive]:
    """Makes a function of two feature tensors a similarity of the language, under the function's name.

    `level` is what it compares; `normalized` asks for unit vectors. Keyword-only parameters of the function become arguments
    in recipes and must be annotated with a plain type (int, float, str, bool, Literal) and have a default. The first line of
    the docstring is its summary. `laws` are tested by `vlmdsl.testing.check_primitive`. The function runs under
    `torch.compile` and must be differentiable; columns are gathered for it when there are several processes.

    TypeError for a function that does not fit; ValueError for a name that another distribution has taken.

    >>> import vlmdsl
    >>> @vlmdsl.primitive(normalized=True, laws=("permutation", "swap"), formula=r"(x_i^\\top y_j)^p")
    ... def power_cosine(x, y, *, power: int = 3):
    ...     '''An odd power of the cosine, which sharpens it.'''
    ...     return (x @ y.T) ** power
    >>> vlmdsl.check("contrast(image, text, sim=power_cosine(power=5))")
    []
    """

    def register(function: Implementation) -> Primitive:
        name, summary = function.__name__, (inspect.getdoc(function) or "").partition("\n")[0]
        if not summary:
            raise TypeError(f"primitive {name}: a docstring is needed; its first line is shown to users")
        made = similarity_primitive(
            name,
            level=level,
            normalized=normalized,
            summary=summary,
            formula=formula,
            laws=laws,
            parameters=_parameters(function, UnitParameters if normalized else Parameters),
            cost=cost,
            example=example,
            origin=function.__module__.partition(".")[0],
        )
        IMPLEMENTATIONS[name] = function
        return made

    return register


def _parameters(function: Implementation, base: type[Parameters]) -> type[Parameters]:
    """A closed parameter model from the keyword-only parameters of a function."""
    signature = inspect.signature(function)
    keywords = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != 2:
        raise TypeError(f"primitive {function.__name__}: two positional parameters are needed, the rows and the columns")
    for parameter in keywords:
        if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
            raise TypeError(f"primitive {function.__name__}: `{parameter.name}` needs an annotation and a default")
    # Only these annotations are evaluated: those of the features may name torch, which is not imported here.
    annotated = SimpleNamespace(__annotations__={parameter.name: parameter.annotation for parameter in keywords})
    hints = get_type_hints(annotated, globalns=getattr(function, "__globals__", {}))
    fields: dict[str, Any] = {parameter.name: (hints[parameter.name], parameter.default) for parameter in keywords}
    return create_model(f"{function.__name__.title()}Parameters", __base__=base, **fields)
