"""The page of a comparison of recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from vlmdsl.runtime.reporting.charts import Line, chart
from vlmdsl.runtime.reporting.html import Html, element, joined, page, table
from vlmdsl.runtime.reporting.pictures import drawing, picture_of_file
from vlmdsl.runtime.reporting.run_page import Flow
from vlmdsl.runtime.tracking.metrics import loss_at_chance

__all__ = ["ComparedRun", "ComparisonFacts", "comparison_page"]

Records: TypeAlias = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison: where it is, how long it took, its metrics."""

    recipe: str
    seed: int
    folder: str
    """Relative to that of the comparison."""
    seconds: float | None
    records: Records


@dataclass(frozen=True)
class ComparisonFacts:
    """All that a page shows of a comparison. `rows` are measure, recipe, mean, difference, interval and verdict; those of
    `further` measures are folded away. `recipes` are the objectives of each recipe."""

    name: str
    folder: Path
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    further: Sequence[Sequence[str]]
    remarks: Sequence[str]
    recipes: Mapping[str, Sequence[Flow]]
    runs: Sequence[ComparedRun]
    picture: str = "comparison.png"


def comparison_page(comparison: ComparisonFacts) -> str:
    """The page as a whole file."""
    numbers = (2, 3, 4)
    results = [table(comparison.head, comparison.rows, numbers, "held-out results, percent")]
    results += [element("p", remark, class_="muted") for remark in comparison.remarks]
    if comparison.further:
        more = table(comparison.head, comparison.further, numbers)
        results.append(element("details", element("summary", "all measures"), more))
    recipes = [
        joined([element("h3", name), *(_objective(flow) for flow in flows)]) for name, flows in comparison.recipes.items()
    ]
    sections = [
        ("Results", "results", joined(results)),
        ("Plots", "plots", picture_of_file(comparison.folder / comparison.picture, "the results as plots, a dot per seed")),
        ("Training", "training", element("div", *_charts(comparison.runs), class_="charts")),
        ("Objectives", "objectives", joined(recipes)),
        ("Runs", "runs", _runs(comparison.runs)),
    ]
    return page(f"Comparison of {comparison.name}", sections, element("p", comparison.about, class_="muted"))


def _objective(flow: Flow) -> Html:
    title = [element("p", flow.title, class_="muted")] if flow.title else []
    return joined([*title, drawing(flow.formula, flow.words) if flow.formula else element("pre", flow.words)])


def _charts(runs: Sequence[ComparedRun]) -> list[Html]:
    """The loss of each recipe, a line per seed, beside its level at chance: losses of different recipes do not compare."""
    charts = []
    for recipe in dict.fromkeys(run.recipe for run in runs):
        own = [run for run in runs if run.recipe == recipe]
        lines = [
            Line(f"seed {run.seed}", [(record["step"], record["loss"]) for record in run.records if "loss" in record])
            for run in own
        ]
        levels = [(record["step"], level) for record in own[0].records if (level := loss_at_chance(record)) is not None]
        charts.append(chart(f"{recipe}, loss", [*lines, Line("chance", levels, dashed=True)]))
    return charts


def _runs(runs: Sequence[ComparedRun]) -> Html:
    rows = [
        (
            run.recipe,
            str(run.seed),
            "" if run.seconds is None else f"{run.seconds:,.0f}",
            element("a", run.folder, href=f"{quote(run.folder)}/report.html"),
        )
        for run in runs
    ]
    return table(("recipe", "seed", "seconds", "folder"), rows, (1, 2))
