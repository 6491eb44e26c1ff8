"""The page of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmdsl.runtime.evaluation.report import PART_TITLES, percent, result_rows
from vlmdsl.runtime.reporting.charts import Line, chart
from vlmdsl.runtime.reporting.examples import confusion_shown, queries_shown
from vlmdsl.runtime.reporting.html import Html, element, joined, page, table
from vlmdsl.runtime.reporting.pictures import drawing, picture_of_file
from vlmdsl.runtime.tracking.curves import panels_of
from vlmdsl.runtime.tracking.metrics import loss_at_chance, term_names
from vlmdsl.runtime.training.records import StoredExamples

__all__ = ["Flow", "RunFacts", "run_page", "term_charts"]

Records = Sequence[Mapping[str, float]]

_MOST_CHARTS = 48
_MOST_TERMS = 40
_MOST_PICTURES = 12
_LONGEST_VALUE = 300


@dataclass(frozen=True)
class Flow:
    """An objective of a run: its title, empty where it is the only one; its formula as SVG, empty where it is too long, and
    in words; its plan."""

    title: str
    formula: str
    words: str
    plan: str


@dataclass(frozen=True)
class RunFacts:
    """All that a page shows of a run; what is missing is left out.

    `facts` is `run.json`, `records` the metrics, `evaluation` `evaluation.json`, `changed` the settings that are not the
    defaults, with these.
    """

    name: str
    folder: Path
    facts: Mapping[str, Any]
    steps: int
    records: Records
    evaluation: Mapping[str, Any]
    examples: Mapping[str, StoredExamples]
    """Those of the measured flow under the empty name, and of other flows under theirs."""
    documentation: str
    source: str
    flows: Sequence[Flow]
    settings: str
    changed: Sequence[tuple[str, object, object]]
    notes: Sequence[str] = field(default=())
    """What could not be read of the folder."""


def run_page(run: RunFacts) -> str:
    """The page as a whole file."""
    done = int(run.records[-1]["step"]) if run.records else 0
    started = run.facts.get("started", {})
    about = (
        f"{done:,} of {run.steps:,} steps, seed {run.facts.get('seed', '')}, begun {started.get('at', '')}, in {run.folder}"
    )
    sections = [
        ("Results", "results", _results(run)),
        ("Training", "training", _training(run.records)),
        ("Objective", "objective", _objective(run)),
        ("Retrieval", "retrieval", joined(queries_shown(own, name) for name, own in run.examples.items())),
        ("Confused classes", "confusion", joined(confusion_shown(own, name) for name, own in run.examples.items())),
        ("Pictures", "pictures", _pictures(run)),
        ("Data, and what was skipped", "data", _data(run.facts)),
        ("Plan", "plan", joined(_titled(flow, element("pre", flow.plan)) for flow in run.flows if flow.plan)),
        ("Settings", "settings", _settings(run)),
        ("Environment", "environment", _environment(run.facts)),
    ]
    notes = [element("p", note, class_="note") for note in run.notes]
    return page(f"Run of {run.name}", sections, element("p", about, class_="muted"), *notes)


def _results(run: RunFacts) -> Html:
    rows = [(title, *map(percent, values)) for title, *values in result_rows(run.evaluation)]
    caption = (
        f"percent, of {run.evaluation.get('samples', 0):,} held-out samples, after step {run.evaluation.get('step', '')}"
    )
    notes = [element("p", str(note), class_="note") for note in _listed(run.evaluation.get("notes"))]
    shown = table(("measure", "trained", "untrained", "chance"), rows, (1, 2, 3), caption)
    return joined([shown, *notes]) if rows else Html("")


def _training(records: Records) -> Html:
    """A table of the terms, a chart of each beside its chance level, and charts of everything else that was logged."""
    if not records:
        return Html("")
    last: dict[str, float] = {name: value for record in records for name, value in record.items()}
    terms = term_names(last)
    rows = [
        (
            name,
            *(_number(last.get(key)) for key in (f"terms/{name}", f"{name}.chance")),
            _number(last.get(f"{name}.gradient_norm", last.get("gradient_norm") if len(terms) == 1 else None)),
            percent(last.get(f"{name}.accuracy")),
        )
        for name in terms[:_MOST_TERMS]
    ]
    head = ("term", "loss", "at chance", "gradient norm", "in-batch accuracy, percent")
    others = [panel for panel in panels_of([dict(record) for record in records]) if panel.title != "loss"]
    charts = term_charts(records)
    for panel in others[:_MOST_CHARTS]:
        factor = 100.0 if panel.percent else 1.0
        lines = [Line(label, _points(records, name, factor)) for name, label in panel.lines.items()]
        charts.append(chart(panel.title, lines, bottom=panel.bottom))
    left = len(others) - _MOST_CHARTS
    more = [element("p", f"{left:,} more numbers are in metrics.jsonl", class_="muted")] if left > 0 else []
    caption = "the last logged values; the gradient norm is over all weights, before clipping"
    return joined([table(head, rows, (1, 2, 3, 4), caption), element("div", *charts, class_="charts"), *more])


def term_charts(records: Records) -> list[Html]:
    """The loss, and each of several terms, beside its level at chance."""
    last: dict[str, float] = {name: value for record in records for name, value in record.items()}
    terms = term_names(last)
    sums = [(record["step"], level) for record in records if (level := loss_at_chance(record)) is not None]
    charts = []
    if not any("." in name for name in terms):  # a step has the terms of one flow, so sums do not compare
        charts.append(chart("loss", [Line("loss", _points(records, "loss")), Line("chance", sums, dashed=True)]))
    for name in terms[:_MOST_TERMS] if len(terms) > 1 else []:
        chance = Line("chance", _points(records, f"{name}.chance"), dashed=True)
        charts.append(chart(f"term {name}", [Line("loss", _points(records, f"terms/{name}")), chance]))
    return charts


def _objective(run: RunFacts) -> Html:
    parts = [element("p", run.documentation)] if run.documentation else []
    for flow in run.flows:
        content = drawing(flow.formula, flow.words) if flow.formula else element("pre", flow.words)
        parts.append(_titled(flow, content))
    knobs = run.facts.get("recipe", {}).get("knobs", {})
    parts.append(table(("hyper-parameter", "value"), [(name, str(value)) for name, value in knobs.items()]))
    if run.source:
        parts.append(element("details", element("summary", "the recipe"), element("pre", run.source)))
    return joined(parts)


def _titled(flow: Flow, content: Html) -> Html:
    return joined([element("h3", flow.title), content]) if flow.title else content


def _pictures(run: RunFacts) -> Html:
    """The pictures of measured parts that lie in the folder."""
    owners = ["", *(f"{flow}." for flow in run.evaluation.get("flows", {}))]
    names = [(f"{owner}{part}", title) for owner in owners for part, title in PART_TITLES.items()]
    shown: list[Html] = []
    for name, title in names:
        content = picture_of_file(run.folder / f"{name}.png", title)
        if content and len(shown) < _MOST_PICTURES:
            shown.append(joined([element("h3", title), content]))
    return joined(shown)


def _data(facts: Mapping[str, Any]) -> Html:
    parts = []
    for name, own in facts.get("data", {}).items():
        kept = {key: value for key, value in own.items() if key not in ("fingerprint", "fields") and value not in ({}, [])}
        parts += [element("h3", name.replace("_", "-")), _facts_table(kept)]
    for name, own in facts.get("skipped", {}).items():
        if not isinstance(own, Mapping):
            continue
        count = sum(number for number in own.get("skipped", {}).values() if isinstance(number, int))
        rows = [
            (reason, f"{number:,}", ", ".join(map(str, _listed(own.get("examples", {}).get(reason)))))
            for reason, number in own.get("skipped", {}).items()
            if isinstance(number, int)
        ]
        words = f"skipped in {name.replace('_', '-')} data: {count:,} sample{'' if count == 1 else 's'}"
        parts += [element("h3", words), table(("reason", "samples", "for instance"), rows, (1,))]
        views = [
            (what, f"{number:,}") for what, number in own.get("views", {}).items() if isinstance(number, int) and number
        ]
        parts.append(table(("views", "times"), views, (1,)))
        parts += [element("p", str(note)) for note in _listed(own.get("notes"))]
    parts += [element("p", f"tower: {remark}") for remark in _listed(facts.get("towers"))]
    return joined(parts)


def _settings(run: RunFacts) -> Html:
    rows = [(name, _value(value), _value(default)) for name, value, default in run.changed]
    whole = element("details", element("summary", "all settings"), element("pre", run.settings))
    changed = table(("setting", "value", "default"), rows) or element("p", "all settings have their defaults")
    return joined([changed, whole]) if run.settings else Html("")


def _environment(facts: Mapping[str, Any]) -> Html:
    parts = [_facts_table(_flat(facts.get("started", {})))]
    for number, own in enumerate(_listed(facts.get("resumed")), start=1):
        parts += [element("h3", f"resumed, time {number}"), _facts_table(_flat(own) if isinstance(own, Mapping) else {})]
    return joined(parts)


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    versions = facts.get("versions", {})
    return {name: value for name, value in facts.items() if name != "versions"} | (
        dict(versions) if isinstance(versions, Mapping) else {}
    )


def _facts_table(facts: Mapping[str, Any]) -> Html:
    return table(("", ""), [(name.replace("_", " "), _value(value)) for name, value in facts.items()])


def _value(value: object) -> str:
    """A value of JSON as text of limited length."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        words = " ".join(value)
    else:
        words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words if len(words) <= _LONGEST_VALUE else f"{words[:_LONGEST_VALUE]} ..."


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _points(records: Records, name: str, factor: float = 1.0) -> list[tuple[float, float]]:
    return list(_each(records, name, factor))


def _each(records: Records, name: str, factor: float) -> Iterator[tuple[float, float]]:
    return ((record["step"], factor * record[name]) for record in records if name in record)
