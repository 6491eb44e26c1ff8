"""The results of a comparison of recipes: means, spreads and paired differences, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmdsl.api.statistics import Difference, paired_difference, spread_of
from vlmdsl.api.tables import table_text
from vlmdsl.diagnostics import plain
from vlmdsl.runtime.files import rounded
from vlmdsl.runtime.tracking.measures import measures_of

__all__ = ["COMPARISON", "FINISHED", "Comparison", "Contender", "Run", "measures_of", "read_comparison", "remark_on_steps"]

COMPARISON = "comparison.json"
FINISHED = "finished.json"
"""The file that a run of a comparison writes last."""
_WIDTH = 120


@dataclass(frozen=True)
class Contender:
    """A recipe in a comparison: a bundled name, a path, or source text with `expression`; its hyper-parameters; its name, by
    default that of the recipe.
    """

    recipe: str | Path
    expression: bool = False
    knobs: Mapping[str, object] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Run:
    """One training run of a contender, with the contents of `evaluation.json`."""

    contender: str
    seed: int
    folder: Path
    evaluation: Mapping[str, Any]
    seconds: float | None
    """How long it took; None if it was stopped and resumed."""


@dataclass(frozen=True)
class Comparison:
    """The runs of every contender, in the order of the contenders and then of the seeds; the first one is the reference.

    `facts` is what they have in common: data, configuration, versions. Files are in `folder`.
    """

    folder: Path
    contenders: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    facts: Mapping[str, Any]
    confidence: float = 0.95

    def measures(self) -> list[str]:
        """Every measure that at least one contender has, such as `retrieval.image_to_text.R@1`."""
        names = (name for run in self.runs for name in measures_of(run.evaluation))
        return list(dict.fromkeys(names))

    def values(self, contender: str, measure: str) -> list[float] | None:
        """The measure of each seed as a fraction; None if the contender does not have it."""
        own = [measures_of(run.evaluation).get(measure) for run in self.runs if run.contender == contender]
        measured = [value for value in own if value is not None]
        return measured if measured and len(measured) == len(own) else None

    def baseline(self, which: str, measure: str) -> float | None:
        """The measure by `chance`, or of the `untrained` model on average over the runs."""
        baselines = [measures_of(run.evaluation, which).get(measure) for run in self.runs]
        values = [value for value in baselines if value is not None]
        return spread_of(values).mean if values else None

    def difference(self, contender: str, measure: str) -> Difference | None:
        """The difference of the contender to the reference, paired by seed; None for the reference itself, and without
        values."""
        values, reference = self.values(contender, measure), self.values(self.contenders[0], measure)
        if contender == self.contenders[0] or values is None or reference is None:
            return None
        return paired_difference(values, reference, self.confidence)

    @property
    def steps(self) -> str:
        """How long the contenders train, in words: `400 steps`, or `400 to 800 steps`."""
        steps = [recipe["steps"] for recipe in self.facts["recipes"].values()]
        return f"{min(steps)} steps" if len({*steps}) == 1 else f"{min(steps)} to {max(steps)} steps"

    def to_json(self) -> dict[str, Any]:
        """The whole comparison, with measures as fractions and folders relative to that of the comparison."""
        runs = [
            {
                "recipe": run.contender,
                "seed": run.seed,
                "folder": run.folder.relative_to(self.folder).as_posix(),
                "seconds": run.seconds,
            }
            for run in self.runs
        ]
        measures = {measure: self._measure(measure) for measure in self.measures()}
        common = {"reference": self.contenders[0], "seeds": list(self.seeds), "confidence": self.confidence}
        return {**self.facts, **common, "measures": rounded(measures), "runs": runs}

    def _measure(self, measure: str) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for contender in self.contenders:
            values = self.values(contender, measure)
            if values is None:
                rows[contender] = None
                continue
            difference = self.difference(contender, measure)
            compared = {} if difference is None else {"difference": asdict(difference) | {"separable": difference.separable}}
            rows[contender] = {"values": values, **asdict(spread_of(values)), **compared}
        return {
            "chance": self.baseline("chance", measure),
            "untrained": self.baseline("untrained", measure),
            "recipes": rows,
        }

    def shown(self) -> list[str]:
        """The measures of the table and the plot: the strictest of each group (R@1, top-1)."""
        groups: dict[str, str] = {}
        for measure in self.measures():
            groups.setdefault(measure.rpartition(".")[0], measure)
        return list(groups.values())

    def to_text(self) -> str:
        """The table, and how far its numbers can be trusted."""
        return plain("\n".join([table_text(self._table(), _WIDTH), *self.remarks(), f"comparison folder: {self.folder}"]))

    def _table(self) -> Any:
        from rich.table import Table

        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        table = Table(title=f"held-out results, percent, {self.steps}, {seeds}")
        table.add_column("measure")
        table.add_column("recipe", overflow="fold")
        for heading in ("mean ± sd", f"difference to {self.contenders[0]}", f"{100 * self.confidence:g} % interval"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for measure in self.shown():
            for row in self.rows(measure):
                table.add_row(*row)
            table.add_section()
        return table

    def rows(self, measure: str) -> list[tuple[str, ...]]:
        """The rows of a measure in the table: its name, a recipe, mean, difference, interval, verdict; the untrained model
        and chance below its name."""
        levels = [
            f"{which} {100 * level:.1f}"
            for which in ("untrained", "chance")
            if (level := self.baseline(which, measure)) is not None
        ]
        titles = (measure.replace("_", " ").replace(".", ", "), ", ".join(levels))
        rows: list[tuple[str, ...]] = [
            (titles[number] if number < 2 else "", contender, *self._cells(contender, measure))
            for number, contender in enumerate(self.contenders)
        ]
        return [*rows, (titles[1], "", "", "", "", "")] if len(rows) == 1 and levels else rows

    def _cells(self, contender: str, measure: str) -> tuple[str, str, str, str]:
        """Mean with standard deviation, difference, interval and verdict."""
        values = self.values(contender, measure)
        if values is None:
            return ("-", "-", "-", "")
        spread = spread_of(values)
        mean = f"{100 * spread.mean:.1f}" + ("" if spread.deviation is None else f" ± {100 * spread.deviation:.1f}")
        difference = self.difference(contender, measure)
        if difference is None:
            return (mean, "", "", "reference" if contender == self.contenders[0] else "")
        if difference.low is None or difference.high is None:
            return (mean, f"{100 * difference.mean:+.1f}", "-", "not separable")
        verdict = ("lower", "higher")[difference.mean > 0] if difference.separable else "not separable"
        interval = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
        return (mean, f"{100 * difference.mean:+.1f}", interval, verdict)

    def remarks(self) -> list[str]:
        """How far the numbers can be trusted."""
        if len(self.contenders) == 1:
            return []
        unequal = remark_on_steps({name: recipe["steps"] for name, recipe in self.facts["recipes"].items()})
        remarks = [unequal] if unequal else []
        if len(self.seeds) == 1:
            return [*remarks, "one seed gives no spread, so no difference can be claimed"]
        share = f"{100 * self.confidence:g} %"
        return [
            *remarks,
            "differences are paired by seed; each interval is Student's and holds on its own: of many intervals",
            f"at {share}, some exclude zero by chance",
        ]


def read_comparison(folder: Path) -> Comparison:
    """The comparison in a folder; `DiagnosticError` (V0850) where its files are damaged, or name places outside of it."""
    files, records = import_module("vlmdsl.runtime.files"), import_module("vlmdsl.runtime.training.records")
    stored = files.read_json(folder / COMPARISON, records.StoredComparison)
    runs = []
    for run in stored.runs:
        place = folder / run.folder
        finished = files.read_json(place / FINISHED, records.FinishedRun).plain()
        runs.append(Run(run.recipe, run.seed, place, finished["evaluation"], run.seconds))
    contenders = tuple(stored.recipes)
    return Comparison(folder, contenders, tuple(stored.seeds), tuple(runs), stored.plain(), stored.confidence)


def remark_on_steps(steps: Mapping[str, int]) -> str:
    """A warning where contenders do not train equally long; `steps` are those of each, over all of its stages.

    >>> remark_on_steps({"clip": 400, "staged": 800})
    'the recipes do not train equally long: clip 400, staged 800 steps; `stages.NAME.train.steps` sets those of a stage'
    >>> remark_on_steps({"clip": 400, "siglip": 400})
    ''
    """
    if len({*steps.values()}) == 1:
        return ""
    listed = ", ".join(f"{name} {count}" for name, count in steps.items())
    return f"the recipes do not train equally long: {listed} steps; `stages.NAME.train.steps` sets those of a stage"
