"""Reads name, summary and arguments of a plug-in's function, and reports what is wrong with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import create_model

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.names import UnfitPlugin
from vlmdsl.primitives.registry import all_primitives
from vlmdsl.primitives.spec import Parameters
from vlmdsl.source import Span

__all__ = [
    "IMPLEMENTATIONS",
    "Implementation",
    "described",
    "origin_of",
    "parameters_of",
    "positional_of",
    "summary_of",
    "unfit",
]

Implementation = Callable[..., Any]

IMPLEMENTATIONS: dict[str, Implementation] = {}
"""The functions of plug-ins, by name; read by the torch back end and the loader when they meet one."""


def implementation(name: str) -> Implementation:
    """The function of a plug-in; in a process that has not loaded them, installed plug-ins are loaded first."""
    if name not in IMPLEMENTATIONS:
        all_primitives()
    return IMPLEMENTATIONS[name]


def unfit(function: Implementation, problem: str, *help: str) -> DiagnosticError:
    """V0216: what is wrong with a plug-in's function."""
    code = getattr(function, "__code__", None)
    place = Span(getattr(code, "co_filename", "<plug-in>"), 0, 0)
    name, origin = getattr(function, "__name__", repr(function)), origin_of(function)
    return DiagnosticError((UnfitPlugin.at(place, help=help, name=name, origin=origin, problem=problem),))


def origin_of(function: Implementation) -> str:
    """The distribution that a function belongs to, according to its module."""
    return function.__module__.partition(".")[0]


def summary_of(function: Implementation) -> str:
    """The first line of the docstring, which users read; V0216 if it has no docstring."""
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    if not summary:
        raise unfit(function, "has no docstring", "the first line of the docstring is displayed to users")
    return summary


def positional_of(function: Implementation) -> list[str]:
    """The names of the positional parameters: the inputs of the function."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in inspect.signature(function).parameters.values() if parameter.kind in kinds]


def parameters_of(function: Implementation, base: type[Parameters]) -> type[Parameters]:
    """A closed parameter model of the keyword-only parameters; V0216 for one without an annotation or a default."""
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for parameter in keywords:
        if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
            raise unfit(function, f"has a parameter `{parameter.name}` without an annotation or without a default")
    # Only these annotations are evaluated: those of the features may name torch, which is not imported here.
    annotated = SimpleNamespace(__annotations__={parameter.name: parameter.annotation for parameter in keywords})
    hints = get_type_hints(annotated, globalns=getattr(function, "__globals__", {}))
    fields: dict[str, Any] = {parameter.name: (hints[parameter.name], parameter.default) for parameter in keywords}
    return create_model(f"{function.__name__.title()}Parameters", __base__=base, **fields)


def described(value: object) -> str:
    """What a function returned, in a few words: an array with its dtype and shape, anything else by its type."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None:
        return f"a value of the type `{type(value).__name__}`"
    return f"{str(dtype).removeprefix('torch.')} of the shape {list(shape)}"
