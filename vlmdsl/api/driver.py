"""The pipeline, one stage per line, which every command that needs a program calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from vlmdsl.api.sources import SOURCES, RecipeSource, read
from vlmdsl.diagnostics import DiagnosticError, render_text, suggestion
from vlmdsl.diagnostics.catalog.configuration import BadSetting
from vlmdsl.diagnostics.catalog.stages import ChooseFlow
from vlmdsl.frontend import FrontEnd, load
from vlmdsl.ir import Flow, Program, Stage, flow_title
from vlmdsl.passes import optimise
from vlmdsl.source import SourceMap, SourceText, Span

__all__ = ["Built", "build", "build_flows", "given_hyper_parameters"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Built:
    """A built recipe, or one flow of it: the program as written, and after all passes."""

    source: RecipeSource
    front_end: FrontEnd
    stage: Stage
    flow: Flow
    planned: Program

    @property
    def written(self) -> Program:
        """The program before any pass."""
        return self.flow.program

    @property
    def title(self) -> str:
        """Which flow it is, in words; "" for the only one of a recipe."""
        return flow_title(self.stage, self.flow)


def build(
    recipe: str | Path,
    *,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    passes: str = "all",
    kept: Mapping[tuple[str, str], SourceText] | None = None,
    stage: str | None = None,
    flow: str | None = None,
) -> Built:
    """From text to planned program; DiagnosticError with all diagnostics, rendered, if there is an error. `passes` are the
    passes that run: `all`, `off`, or names separated by commas. With `kept`, the files that the recipe uses are taken from
    there, as in `vlmdsl.frontend.load`, and no other file is read.

    `stage` and `flow` select one objective of several; DiagnosticError (V0221) unless exactly one is selected.
    """
    source, front_end = _front_end(recipe, expression, knobs, kept)
    own, part = _chosen(front_end, stage, flow)
    return _planned(source, front_end, own, part, passes)


def build_flows(
    recipe: str | Path,
    *,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    passes: str = "all",
    kept: Mapping[tuple[str, str], SourceText] | None = None,
) -> tuple[Built, ...]:
    """The same for all flows of all stages of a recipe, in their order."""
    source, front_end = _front_end(recipe, expression, knobs, kept)
    flows = [(stage, flow) for stage in front_end.stages for flow in stage.flows]
    return tuple(_planned(source, front_end, stage, flow, passes) for stage, flow in flows)


def _front_end(
    recipe: str | Path,
    expression: bool,
    knobs: Mapping[str, object] | None,
    kept: Mapping[tuple[str, str], SourceText] | None,
) -> tuple[RecipeSource, FrontEnd]:
    chosen = given_hyper_parameters(knobs)
    source = read(recipe, expression=expression)
    front_end = load(
        SourceText(source.name, source.text), knobs=chosen, folder=None if kept is not None else source.folder, kept=kept
    )
    SOURCES.texts.update(front_end.sources.texts)
    if not front_end.stages:
        diagnostics = tuple(front_end.diagnostics)
        raise DiagnosticError(diagnostics, render_text(diagnostics, front_end.sources))
    return source, front_end


def given_hyper_parameters(knobs: Mapping[str, object] | None) -> Mapping[str, object]:
    """The hyper-parameters of a call, numbers of numpy as Python's; V0812 unless they are a mapping."""
    if not knobs:
        return {}
    if isinstance(knobs, Mapping):
        as_setting = import_module("vlmdsl.schema.python_values").as_setting  # only where there are some: it loads pydantic
        plain = {str(name): (value, as_setting(value)) for name, value in knobs.items()}
        return {name: own if isinstance(own, int | float | str) else value for name, (value, own) in plain.items()}
    help, place = 'write `knobs={"temperature": 0.1}`', Span("<command line>", 0, 0)
    problem = "must be a mapping of values by the name of a hyper-parameter"
    raise DiagnosticError((BadSetting.at(place, name="knobs", problem=problem, help=(help,)),))


def _planned(source: RecipeSource, front_end: FrontEnd, stage: Stage, flow: Flow, passes: str) -> Built:
    return Built(source, front_end, stage, flow, optimise(flow.program, passes=passes))


def _chosen(front_end: FrontEnd, stage: str | None, flow: str | None) -> tuple[Stage, Flow]:
    """The flow that is meant; V0221 where none has this name, or several to choose from."""
    stages = {each.name: each for each in front_end.stages}
    own = _one("stage", stages, stage, "the recipe")
    flows = {each.name: each for each in own.flows}
    return own, _one("flow", flows, flow, f"the stage `{own.name}`" if own.name else "the recipe")


def _one(what: str, named: Mapping[str, _T], name: str | None, whose: str) -> _T:
    if name is None and len(named) == 1:
        return next(iter(named.values()))
    if name is not None and name in named and name:
        return named[name]
    if not any(named):
        reason, help = f"{whose} has no {what}s, so there is no `{name}` to choose", f"leave `{what}` out"
    elif name is None:
        reason, help = f"{whose} has several {what}s, and one objective is needed", f'choose one with `{what}="..."`'
    else:
        reason, help = f"{whose} has no {what} `{name}`", suggestion(name, named, f"its {what}s")
    notes = (f"its {what}s are {', '.join(named)}",) if name is None else ()
    diagnostic = ChooseFlow.at(Span("<command line>", 0, 0), notes=notes, help=(help,), reason=reason)
    raise DiagnosticError((diagnostic,), render_text((diagnostic,), SourceMap()))
