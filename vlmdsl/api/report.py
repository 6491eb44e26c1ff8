"""`report`: the page of a run folder, or of a comparison, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.comparison import COMPARISON, Comparison, read_comparison
from vlmdsl.api.driver import Built, build_flows
from vlmdsl.api.runs import load_settings, parts_of
from vlmdsl.backends.latex import formula_lines, formula_text
from vlmdsl.backends.latex.render import formula_svg
from vlmdsl.backends.plan import make_plan
from vlmdsl.diagnostics import DiagnosticError, plain
from vlmdsl.schema import RunConfig, config_of

if TYPE_CHECKING:
    from vlmdsl.runtime.reporting import Flow

__all__ = ["REPORT", "ReportResult", "report", "write_comparison_report", "write_run_report"]

REPORT = "report.html"
_LONGEST_FORMULA = 20_000
"""Characters of LaTeX: laying out longer ones takes minutes."""


@dataclass(frozen=True)
class ReportResult:
    """The file that was written, and what of the folder could not be shown."""

    path: Path
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"report": str(self.path), "notes": list(self.notes)}

    def to_text(self) -> str:
        """The same, for people."""
        return plain("\n".join([*(f"note: {note}" for note in self.notes), f"report: {self.path}"]))


def report(run: str | Path) -> ReportResult:
    """Write `report.html` into a run folder: results, curves of every term beside its chance level, the formula, examples of
    retrieval, confused classes, the plan, settings, and what was skipped. Into the folder of a comparison: its results,
    plots, curves and formulas.

    The folder may be that of a run that goes on, or that failed; `train` and `compare` write the page at their end. Raises
    `DiagnosticError` (V0816, V0850) for a folder that is neither, or that is damaged.

    >>> import tempfile, vlmdsl
    >>> from vlmdsl.api.report import report
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> report(run.folder).path.name
    'report.html'
    """
    if (Path(run) / COMPARISON).exists():
        return write_comparison_report(read_comparison(Path(run)))
    folder = import_module("vlmdsl.runtime.training.run_folder").RunFolder.existing(str(run))
    built, notes = _built(folder)
    config = load_settings(folder.config, (), {}, parts_of(built) if built else None)
    return write_run_report(folder, built, config, notes)


def _built(folder: Any) -> tuple[Sequence[Built], list[str]]:
    """The recipe of a run folder; nothing, and a note, if this version cannot compile it."""
    try:
        return build_flows(folder.recipe, knobs=folder.read_facts().recipe.given_knobs, kept=folder.kept_uses()), []
    except DiagnosticError as error:
        faults = (f"{diagnostic.code}: {diagnostic.message}" for diagnostic in error.diagnostics)
        return (), [f"the recipe cannot be compiled: {fault}" for fault in faults]


def write_run_report(folder: Any, built: Sequence[Built], config: RunConfig, notes: Sequence[str] = ()) -> ReportResult:
    """Write the page of a run in a `RunFolder`, whose recipe is `built`."""
    reporting = import_module("vlmdsl.runtime.reporting")
    read_text = import_module("vlmdsl.runtime.files").read_text
    facts = folder.read_facts()
    evaluation = folder.read_evaluation()
    records = import_module("vlmdsl.runtime.tracking").read_metrics(folder.metrics) if folder.metrics.is_file() else []
    stages = dict.fromkeys(one.stage.name for one in built)
    shown = reporting.RunFacts(
        name=facts.recipe.name,
        folder=folder.path,
        facts=facts.plain(),
        steps=sum(config_of(config, name).train.steps for name in stages) or config.train.steps,
        records=records,
        evaluation=evaluation,
        examples=_examples(folder, evaluation.get("flows", {})),
        documentation=built[0].written.documentation if built else "",
        source=read_text(folder.recipe),
        flows=[_flow(one, config, facts.started.get("processes", 1)) for one in built],
        settings=read_text(folder.config),
        changed=_changed(config),
        notes=notes,
    )
    path = folder.path / REPORT
    import_module("vlmdsl.runtime.files").write_atomically(path, reporting.run_page(shown))
    return ReportResult(path, tuple(notes))


def _flow(built: Built, config: RunConfig, processes: object) -> Flow:
    """The formula and the plan of an objective, for the sizes that its settings say."""
    own = config_of(config, built.stage.name, built.flow.name)
    lowering = own.schedule.lowering
    terms = {term.name for term in built.written.terms}
    if not isinstance(lowering, str):
        lowering = {name: chosen for name, chosen in lowering.items() if name in terms or name == "*"}
    plan = make_plan(
        built.planned,
        batch=own.train.batch,
        world=processes if isinstance(processes, int) and own.train.batch % max(processes, 1) == 0 else 1,
        dim=own.model.dimension,
        vocabulary=own.model.vocabulary,
        micro=own.train.micro,
        lowering=lowering,
        sources=built.front_end.sources,
    )
    flow: Flow = import_module("vlmdsl.runtime.reporting").Flow(built.title, *_formula(built), plan.to_text())
    return flow


def _examples(folder: Any, flows: Iterable[str]) -> dict[str, Any]:
    records = import_module("vlmdsl.runtime.training.records")
    read_json = import_module("vlmdsl.runtime.files").read_json
    files = {name: folder.path / f"{name}{'.' if name else ''}examples.json" for name in ("", *flows)}
    return {
        name: read_json(file, records.StoredExamples, help="remove it: `vlmdsl eval` writes it again")
        for name, file in files.items()
        if file.exists()
    }


def _changed(config: RunConfig) -> list[tuple[str, object, object]]:
    """The settings that differ from their defaults, with these."""
    settings_of = import_module("vlmdsl.runtime.training.identity").settings_of
    defaults = settings_of(RunConfig())
    return [(name, value, defaults[name]) for name, value in settings_of(config).items() if value != defaults[name]]


def write_comparison_report(comparison: Comparison) -> ReportResult:
    """Write the page of a comparison into its folder."""
    reporting = import_module("vlmdsl.runtime.reporting")
    folders = import_module("vlmdsl.runtime.training.run_folder")
    read_metrics = import_module("vlmdsl.runtime.tracking").read_metrics
    runs, recipes, notes = [], dict[str, Any](), list[str]()
    for run in comparison.runs:
        folder = folders.RunFolder.existing(str(run.folder))
        place = run.folder.relative_to(comparison.folder).as_posix()
        records = read_metrics(folder.metrics) if folder.metrics.is_file() else []
        runs.append(reporting.ComparedRun(run.contender, run.seed, place, run.seconds, records))
        if run.contender not in recipes:
            built, faults = _built(folder)
            notes += faults
            recipes[run.contender] = [reporting.Flow(one.title, *_formula(one), plan="") for one in built]
    shown = comparison.shown()
    share = f"{100 * comparison.confidence:g} %"
    facts = reporting.ComparisonFacts(
        name=", ".join(comparison.contenders),
        folder=comparison.folder,
        about=f"{comparison.steps}, seeds {', '.join(map(str, comparison.seeds))}, in {comparison.folder}",
        head=("measure", "recipe", "mean ± sd", f"difference to {comparison.contenders[0]}", f"{share} interval", ""),
        rows=[row for measure in shown for row in comparison.rows(measure)],
        further=[row for measure in comparison.measures() if measure not in shown for row in comparison.rows(measure)],
        remarks=[*comparison.remarks(), *notes],
        recipes=recipes,
        runs=runs,
    )
    path = comparison.folder / REPORT
    import_module("vlmdsl.runtime.files").write_atomically(path, reporting.comparison_page(facts))
    return ReportResult(path, tuple(notes))


def _formula(built: Built) -> tuple[str, str]:
    """The formula of an objective as SVG, empty where it cannot be laid out, and in words."""
    lines, words = formula_lines(built.written), formula_text(built.written)
    if sum(map(len, lines)) > _LONGEST_FORMULA:
        return "", words
    try:
        return formula_svg(lines), words
    except (ValueError, RecursionError):  # a symbol that mathtext lacks, or brackets in brackets without end
        return "", words
