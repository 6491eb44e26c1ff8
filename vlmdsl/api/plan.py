"""`plan`: what a recipe will run and what it costs, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    from vlmdsl.api.planned_run import PlannedWeights

__all__ = ["FlowPlans", "dump", "plan", "plan_flows"]


def plan(
    recipe: str | Path,
    *,
    expression: bool = False,
    batch: int = 1024,
    world: int = 1,
    dim: int = 512,
    dtype: str = "float32",
    image_tokens: int = 49,
    text_tokens: int = 32,
    vocabulary: int = 49_408,
    references: int = 65_536,
    samples: int = 1_000_000,
    image_size: int = 224,
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
    """The plan of each flow of each stage of a recipe, in their order; of a recipe without any the only one. With settings
    of a run also the `weights` of its towers and modules."""

    flows: tuple[tuple[Built, Plan], ...]
    weights: PlannedWeights | None = None

    def to_text(self) -> str:
        """The plans as tables, each under the title of its flow, then the weights."""
        plans = "\n".join(_under_title(built.title, plan.to_text()) for built, plan in self.flows)
        return plans if self.weights is None else f"{plans}\n\n{self.weights.to_text()}"

    def to_json(self) -> dict[str, object]:
        """The plans as plain data: that of the only flow, or a list under `flows`; the weights under `weights`."""
        weights = {} if self.weights is None else {"weights": self.weights.to_json()}
        plans = [plan.to_json() for _, plan in self.flows]
        if len(plans) == 1:
            return plans[0] | weights
        named = [{"stage": built.stage.name, "flow": built.flow.name, "share": built.flow.share} for built, _ in self.flows]
        return {"flows": [{**name, **plan} for name, plan in zip(named, plans, strict=True)], **weights}


def plan_flows(
    recipe: str | Path,
    *,
    expression: bool = False,
    passes: str = "all",
    knobs: Mapping[str, object] | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    lowering: str | Mapping[str, str] | None = None,
    **options: Any,
) -> FlowPlans:
    """Return the plans of all flows of a recipe; the options are those of `plan`.

    With settings of a run, those in the file `config` and in `overrides`, as for `vlmdsl.train`, the plan is that of the
    run: batch, micro-batches and lowerings, of each flow its own, are those of the settings, sizes of images, texts and
    features those of its towers, which are built for it, and numbers of samples those of its data, which is opened. Options
    come before them. Raises `DiagnosticError` (V0848) where an option and `overrides` disagree, and for settings, data or
    towers that cannot be used.

    >>> len(plan_flows("clip").flows), plan_flows("clip", overrides=["train.batch=64"]).flows[0][1].batch
    (1, 64)
    """
    flows = build_flows(recipe, expression=expression, knobs=knobs, passes=passes)
    options = {name: value for name, value in options.items() if value is not None}
    if config is None and not overrides:
        own = {"lowering": lowering or "auto", **options}
        return FlowPlans(tuple((one, make_plan(one.planned, sources=one.front_end.sources, **own)) for one in flows))
    from vlmdsl.api.planned_run import planned_run  # which builds the towers, with torch
    from vlmdsl.api.runs import load_settings, lowering_of, parts_of

    named = {"train.batch": options.get("batch"), "train.micro": options.get("micro"), "schedule.lowering": lowering or None}
    arguments = {name: value for name, value in named.items() if value is not None}
    resolved = load_settings(config, overrides, arguments, parts_of(flows))
    run = planned_run(flows, resolved, options.get("world", 1))
    terms = {term.name for one in flows for term in one.written.terms}
    plans = []
    for one in flows:
        sizes = {**run.sizes[one.stage.name, one.flow.name], **options}
        request = lowering_of(resolved, one, terms)
        plans.append((one, make_plan(one.planned, sources=one.front_end.sources, lowering=request, **sizes)))
    return FlowPlans(tuple(plans), run.weights)


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
