"""Parameters of primitives: declared once with type, bounds and documentation, checked when a call gives them.

pydantic, which checks the run configuration, would take a third of the time that `check` takes (`docs/adr/0012`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["Misfit", "Parameter", "Parameters", "declared", "options", "parameter", "takes"]

_REQUIRED = object()
_PLAIN: dict[object, tuple[str, tuple[type, ...]]] = {
    int: ("whole number", (int,)),
    float: ("number", (int, float)),
    str: ("string", (str,)),
    bool: ("true or false", (bool,)),
}
_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    ">=": (operator.ge, "greater than or equal to"),
    ">": (operator.gt, "greater than"),
    "<=": (operator.le, "less than or equal to"),
    "<": (operator.lt, "less than"),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """The declaration of one parameter: `name` is what recipes write, `attribute` what the meaning of a primitive reads."""

    default: object
    description: str
    gt: float | None
    ge: float | None
    lt: float | None
    le: float | None
    pattern: str
    min_length: int
    check: Callable[[Any], str] | None
    name: str
    attribute: str = ""
    kind: object = None

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    @property
    def bounds(self) -> list[tuple[str, float]]:
        """The bounds that there are, with their signs."""
        found = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return [(sign, bound) for sign, bound in found if bound is not None]


class Misfit(ValueError):  # noqa: N818 - the recipe is at fault, not the program
    """A value that a parameter cannot have, and why."""

    def __init__(self, parameter: Parameter, value: object, reason: str) -> None:
        self.parameter, self.value, self.reason = parameter, value, reason
        super().__init__(f"{parameter.name}: {reason}")


def parameter(
    *,
    default: object = _REQUIRED,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    pattern: str = "",
    min_length: int = 0,
    check: Callable[[Any], str] | None = None,
    alias: str = "",
    description: str = "",
) -> Any:
    """Declares an attribute of `Parameters`. `description` is its documentation, `alias` its name in recipes.

    A number is greater than (`gt`), greater or equal (`ge`), ...; a string matches `pattern`, a string or tuple is as
    long as `min_length`; `check` says what else is wrong with a value, or nothing. Without a `default` it must be given.
    """
    return Parameter(default, description, gt, ge, lt, le, pattern, min_length, check, alias)


class Parameters:
    """Base of the parameters of a primitive: closed, strict, immutable. Each is an annotated attribute.

    Misfit for a value that does not fit; TypeError for a name that is not declared or not given.

    >>> class Softness(Parameters):
    ...     epsilon: float = parameter(gt=0.0, description="how soft it is")
    >>> Softness(epsilon=1).epsilon
    1.0
    """

    def __init__(self, **given: object) -> None:
        for each in declared(type(self)):
            if each.name in given:
                value = _fit(each, each.kind, given.pop(each.name))
            elif each.required:
                raise TypeError(f"{type(self).__name__} wants {each.name}")
            else:
                value = each.default
            self.__dict__[each.attribute] = value
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


_DECLARED: dict[type[Parameters], tuple[Parameter, ...]] = {}


def declared(parameters: type[Parameters]) -> tuple[Parameter, ...]:
    """The parameters of a primitive in their order, those of base classes first; types are read when first asked for."""
    if parameters not in _DECLARED:
        _DECLARED[parameters] = tuple(_declared(parameters))
    return _DECLARED[parameters]


def _declared(parameters: type[Parameters]) -> Iterator[Parameter]:
    for attribute, kind in get_type_hints(parameters).items():
        declaration = getattr(parameters, attribute, None)
        if not isinstance(declaration, Parameter):
            raise TypeError(f"{parameters.__name__}.{attribute} is not declared by `parameter(...)`")
        yield replace(declaration, name=declaration.name or attribute, attribute=attribute, kind=_present(kind))


def takes(parameter: Parameter) -> str:
    """What it may be, in words: `whole number >= 1`, `"rows" or "columns"`."""
    words = options(parameter.kind)
    if words:
        return " or ".join(f'"{word}"' for word in words)
    name, _ = _PLAIN.get(parameter.kind, ("value", ()))
    return " ".join([name, ", ".join(f"{sign} {bound:g}" for sign, bound in parameter.bounds)]).strip()


def options(kind: object) -> tuple[object, ...]:
    """What a parameter of this type is one of; nothing where the values are not listed."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def _present(kind: object) -> object:
    """The type of a parameter where it is given: `float` of `float | None`."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (member for member in get_args(kind) if member is not type(None))
    return kind


def _fit(parameter: Parameter, kind: object, value: object) -> object:
    """The value as one of this type; Misfit where it is none."""
    words = options(kind)
    if words and value not in words:
        listed = ", ".join(f'"{word}"' for word in words)
        raise Misfit(parameter, value, f"must be one of {listed}")
    if kind in _PLAIN:
        name, types = _PLAIN[kind]
        if not isinstance(value, types):
            raise Misfit(parameter, value, f"must be {name}" if kind is bool else f"must be a {name}")
        value = float(value) if kind is float and isinstance(value, int) else value
    elif get_origin(kind) is tuple:
        value = _fit_tuple(parameter, get_args(kind), value)
    _check(parameter, value)
    return value


def _fit_tuple(parameter: Parameter, kinds: tuple[object, ...], value: object) -> tuple[object, ...]:
    if not isinstance(value, tuple):
        raise Misfit(parameter, value, "must be a tuple, in brackets")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise Misfit(parameter, value, f"must have {len(kinds)} items, and has {len(value)}")
    return tuple(
        _fit(replace(parameter, check=None, min_length=0), kind, item) for kind, item in zip(kinds, value, strict=True)
    )


def _check(parameter: Parameter, value: object) -> None:
    if isinstance(value, int | float):
        for sign, bound in parameter.bounds:
            holds, words = _BOUNDS[sign]
            if not holds(value, bound):
                raise Misfit(parameter, value, f"must be {words} {bound:.10g}")
    if parameter.pattern and isinstance(value, str) and not re.search(parameter.pattern, value):
        raise Misfit(parameter, value, f"must match `{parameter.pattern}`")
    if isinstance(value, str | tuple) and len(value) < parameter.min_length:
        raise Misfit(parameter, value, f"must be at least {parameter.min_length} long")
    reason = parameter.check(value) if parameter.check else ""
    if reason:
        raise Misfit(parameter, value, reason)
