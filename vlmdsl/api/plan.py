"""`plan`: what a recipe will run and what it costs, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.driver import Built, build, build_flows
from vlmdsl.backends.plan import Plan, make_plan
from vlmdsl.diagnostics import DiagnosticError, plain, render_text
from vlmdsl.diagnostics.catalog.lowering import UnknownStage
from vlmdsl.ir import Program
from vlmdsl.ir.text import program_text
from vlmdsl.passes import optimise
from vlmdsl.source import SourceMap, Span

if TYPE_CHECKING:
    from vlmdsl.schema import RunConfig

__all__ = ["FlowPlans", "dump", "plan", "plan_flows"]

_SIDE, _TOKENS = 224, 49
"""The side of an image in pixels and its patches, unless something else is said."""


def plan(
    recipe: str | Path,
    *,
    expression: bool = False,
    batch: int = 1024,
    world: int = 1,
    dim: int = 512,
    dtype: str = "float32",
    image_tokens: int = _TOKENS,
    text_tokens: int = 32,
    vocabulary: int = 49_408,
    references: int = 65_536,
    samples: int = 1_000_000,
    image_size: int = _SIDE,
    micro: int | None = None,
    lowering: str | Mapping[str, str] = "auto",
    passes: str = "all",
    knobs: Mapping[str, object] | None = None,
    stage: str | None = None,
    flow: str | None = None,
) -> Plan:
    """Plan a step: its schedule, shared values, FLOPs, bytes, peak memory, collectives and the lowering of each region.

    The plan is for `batch` samples on `world` processes and features of dimension `dim`, with `image_tokens` patches per
    image and `text_tokens` tokens per text, `vocabulary` entries of the tokenizer where tokens are predicted, `references`
    samples in a reference set, and `samples` in the data set (where a number per sample is kept); images with sides of
    `image_size` pixels, and `micro` samples of a process at once through the towers (None: all). `lowering` and `passes` are
    as for `compile`. Costs are computed from formulas, not measured.

    Of a recipe with stages or flows, `stage` and `flow` select one (V0221); `plan_flows` gives all.

    >>> "dense" in plan("clip", batch=4096).to_text()
    True
    """
    built = build(recipe, expression=expression, knobs=knobs, passes=passes, stage=stage, flow=flow)
    return make_plan(
        built.planned,
        batch=batch,
        world=world,
        dim=dim,
        dtype=dtype,
        image_tokens=image_tokens,
        text_tokens=text_tokens,
        vocabulary=vocabulary,
        references=references,
        samples=samples,
        image_size=image_size,
        micro=micro,
        lowering=lowering,
        sources=built.front_end.sources,
    )


@dataclass(frozen=True)
class FlowPlans:
    """The plan of each flow of each stage of a recipe, in their order; of a recipe without any the only one."""

    flows: tuple[tuple[Built, Plan], ...]

    def to_text(self) -> str:
        """The plans as tables, each under the title of its flow."""
        return "\n".join(_under_title(built.title, plan.to_text()) for built, plan in self.flows)

    def to_json(self) -> dict[str, object]:
        """The plans as plain data: that of the only flow, or a list under `flows`."""
        plans = [plan.to_json() for _, plan in self.flows]
        if len(plans) == 1:
            return plans[0]
        named = [{"stage": built.stage.name, "flow": built.flow.name, "share": built.flow.share} for built, _ in self.flows]
        return {"flows": [{**name, **plan} for name, plan in zip(named, plans, strict=True)]}


def plan_flows(
    recipe: str | Path,
    *,
    expression: bool = False,
    passes: str = "all",
    knobs: Mapping[str, object] | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    batch: int | None = None,
    micro: int | None = None,
    lowering: str | Mapping[str, str] | None = None,
    **options: Any,
) -> FlowPlans:
    """Return the plans of all flows of a recipe; the options are those of `plan`.

    `train.batch`, `train.micro` and lowerings of the settings in the file `config` and in `overrides`, as for
    `vlmdsl.train`, are those of the plan, of each flow its own; the arguments come after those of the file. Where a stage
    has images of its own size, `image_size` and `image_tokens` grow or shrink as they do. Raises `DiagnosticError`
    (V0848) where an argument and `overrides` disagree.

    >>> len(plan_flows("clip").flows), plan_flows("clip", overrides=["train.batch=64"]).flows[0][1].batch
    (1, 64)
    """
    flows = build_flows(recipe, expression=expression, knobs=knobs, passes=passes)
    named = {"train.batch": batch, "train.micro": micro, "schedule.lowering": lowering or None}
    sizes = {"batch": batch or _BATCH, "micro": micro, "lowering": lowering or "auto"}
    plans = []
    of_flow: Callable[[Built], Mapping[str, Any]] = lambda _: sizes  # noqa: E731 - or that of the settings
    if config is not None or overrides:
        arguments = {name: own for name, own in named.items() if own is not None}
        of_flow = _by_settings(flows, config, overrides, arguments, options)
    for built in flows:
        plans.append((built, make_plan(built.planned, sources=built.front_end.sources, **{**options, **of_flow(built)})))
    return FlowPlans(tuple(plans))


def _by_settings(
    flows: Sequence[Built],
    config: str | Path | None,
    overrides: Iterable[str],
    named: Mapping[str, object],
    options: Mapping[str, Any],
) -> Callable[[Built], Mapping[str, Any]]:
    """What the settings of a run say about the step of a flow."""
    from vlmdsl.api.runs import load_settings, lowering_of, parts_of  # the plan without settings needs none of it
    from vlmdsl.schema import config_of

    resolved = load_settings(config, overrides, named, parts_of(flows))
    terms = {term.name for built in flows for term in built.written.terms}

    def of_flow(built: Built) -> Mapping[str, Any]:
        train = config_of(resolved, built.stage.name, built.flow.name).train
        batch = train.batch if "batch" in train.model_fields_set else _BATCH
        sizes = _of_images(resolved, built.stage.name, options)
        return {"batch": batch, "micro": train.micro, "lowering": lowering_of(resolved, built, terms), **sizes}

    return of_flow


def _of_images(config: RunConfig, stage: str, options: Mapping[str, Any]) -> dict[str, int]:
    """The side of an image and its patches, of a stage with images of its own size: those of the plan, as much larger or
    smaller as its images are than those of the run."""
    from vlmdsl.schema import image_size_of

    own = image_size_of(config, stage)
    if own is None:
        return {}
    side, tokens = options.get("image_size", _SIDE), options.get("image_tokens", _TOKENS)
    built_in_size = import_module("vlmdsl.runtime.modules.towers.build").built_in_size  # which needs torch
    ratio = own / (config.model.image_size or built_in_size(config.model.image_encoder) or _SIDE)
    return {"image_size": max(1, round(side * ratio)), "image_tokens": max(1, round(tokens * ratio**2))}


_BATCH = 1024
"""Samples of a batch that is planned, unless something else is said."""


def _under_title(title: str, text: str) -> str:
    return f"{title}\n{'=' * len(title)}\n{text}" if title else text


def dump(recipe: str | Path, stage: str, *, expression: bool = False, knobs: Mapping[str, object] | None = None) -> str:
    """The printed graph as written (`ir`) or after one pass (NAME or `ir:NAME`), of several flows each under its title;
    DiagnosticError for an unknown pass."""
    flows = build_flows(recipe, expression=expression, knobs=knobs)
    return "\n".join(_under_title(built.title, _printed(built.written, stage)) for built in flows)


def _printed(written: Program, stage: str) -> str:
    printed = {"ir": plain(program_text(written))}

    def keep(name: str, program: Program) -> None:
        printed[name] = plain(program_text(program))

    optimise(written, dump=keep)
    name = stage.removeprefix("ir:")
    if name not in printed:
        help = (f"possible: {', '.join(printed)}",)
        diagnostic = UnknownStage.at(Span("<command line>", 0, 0), help=help, name=stage)
        raise DiagnosticError((diagnostic,), render_text([diagnostic], SourceMap()))
    return printed[name]
