"""The results of an evaluation: as JSON beside chance and the untrained model, and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from vlmdsl.runtime.evaluation.examples import BestMatches, Confusion
from vlmdsl.runtime.evaluation.retrieval import Measures, Retrieval

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "PART_TITLES", "Evaluation", "ResultRow", "percent", "result_rows", "results_json", "results_table", "stored_untrained",
]  # fmt: skip

_DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}
_CLASSIFIED = {
    "zero_shot": ("zero_shot", "zero-shot"),
    "nearest_neighbours": ("neighbours", "nearest neighbours"),
    "linear_probe": ("probe", "linear probe"),
}
"""Group of classification results -> its attribute of `Evaluation`, and its title."""
PART_TITLES = {
    "reconstruction": "dropped patches",
    "codes": "codes of masked patches",
    "grounding": "names of boxes",
    "captions": "captions",
    "grouping": "objects and groups",
    "matching": "image-text matching",
    "masked_words": "masked words given the image",
}
"""Group of results of a part of a recipe -> its title."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on `samples` samples; None for what the recipe or the data does not allow."""

    samples: int
    retrieval: Retrieval | None = None
    zero_shot: Measures | None = None
    classes: int = 0
    neighbours: Measures | None = None
    probe: Measures | None = None
    parts: Mapping[str, Measures] = field(default_factory=dict)
    """What was measured of parts of the recipe, by the names of `PART_TITLES`."""
    flows: Mapping[str, Evaluation] = field(default_factory=dict)
    """What was measured of other flows of the same stage, by their names."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Measures that are missing, and why."""
    matches: BestMatches | None = field(default=None, compare=False)
    """Some queries of retrieval with their best matches."""
    confusion: Confusion | None = field(default=None, compare=False)
    """The classes that zero-shot classification gives images of each class."""


def results_json(trained: Evaluation, untrained: Evaluation | None = None) -> dict[str, Any]:
    """The results as fractions, each group with `chance` and, if given, `untrained` beside, and its `baselines`, if any.

    `results["retrieval"]["image_to_text"]["R@1"]` is the trained model's, `[...]["chance"]["R@1"]` a random guess's and
    `[...]["untrained"]["R@1"]` that of the model before its first step; `results["zero_shot"]["top-1"]`,
    `results["nearest_neighbours"]["top-1"]` and `results["linear_probe"]["top-1"]` likewise, with what they were measured
    with (`k`, `images`). Each measured part of a recipe is a group: `results["reconstruction"]["error"]` is the error of
    dropped patches over that of the mean image, which has 1. `results["notes"]`, where there are any, say which measures
    mean nothing on so little data, and which samples were left out. `results["flows"][NAME]` are those of other flows.
    """
    results: dict[str, Any] = {"samples": trained.samples}
    if trained.retrieval is not None:
        before = untrained.retrieval if untrained is not None else None
        results["retrieval"] = {"images": trained.retrieval.images, "texts": trained.retrieval.texts}
        for direction in _DIRECTIONS:
            own = getattr(trained.retrieval, direction)
            results["retrieval"][direction] = _group(own, getattr(before, direction, None))
    for name, (where, _) in _CLASSIFIED.items():
        own = getattr(trained, where)
        if own is not None:
            results[name] = {"classes": trained.classes, **own.facts, **_group(own, getattr(untrained, where, None))}
    for name, part in trained.parts.items():
        results[name] = {**part.facts, **_group(part, None if untrained is None else untrained.parts.get(name))}
    if trained.flows:
        before_of = {} if untrained is None else untrained.flows
        results["flows"] = {name: results_json(flow, before_of.get(name)) for name, flow in trained.flows.items()}
    notes = [*_notes(results), *trained.notes]
    return {**results, "notes": notes} if notes else results


def _notes(results: Mapping[str, Any]) -> list[str]:
    """Notes for readers: measures without meaning on so little data, and samples that are left out."""
    notes: list[str] = []
    retrieval = results.get("retrieval", {})
    for direction, candidates in (("image_to_text", "texts"), ("text_to_image", "images")):
        notes += _certain(f"retrieval, {_DIRECTIONS[direction]}", retrieval.get(direction, {}), retrieval, candidates)
    zero_shot, neighbours, probe = (results.get(name, {}) for name in _CLASSIFIED)
    notes += _certain("zero-shot", zero_shot, zero_shot, "classes")
    if zero_shot and zero_shot.get("images", results["samples"]) < results["samples"]:
        without = results["samples"] - zero_shot["images"]
        notes.append(f"zero-shot: {without:,} of {results['samples']:,} samples have no named class and are left out")
    if neighbours.get("alone"):
        notes.append(f"nearest neighbours: {neighbours['alone']:,} images are alone in their class and are not classified")
    if probe.get("left_out"):
        notes.append(f"linear probe: {probe['left_out']:,} images are of classes without a training image and are left out")
    if probe.get("classes") == 1:
        notes.append("linear probe: all training images have the same class, so it predicts no other")
    return notes


def _certain(title: str, group: Mapping[str, Any], counts: Mapping[str, int], candidates: str) -> list[str]:
    """A note on measures that are always 1, because there are no more candidates than places."""
    certain = [name for name, chance in group.get("chance", {}).items() if chance >= 1.0]
    if not certain:
        return []
    return [f"{title}: {', '.join(certain)} cannot be wrong with only {counts[candidates]:,} {candidates}"]


def stored_untrained(results: Mapping[str, Any]) -> Evaluation | None:
    """What `results_json` was given as `untrained`; None if it was given none."""
    retrieval, classified = results.get("retrieval"), {name: results.get(name) for name in _CLASSIFIED}
    parts = {name: results[name] for name in PART_TITLES if name in results}
    groups = [retrieval[name] for name in _DIRECTIONS] if retrieval is not None else []
    groups += [group for group in classified.values() if group is not None]
    groups += parts.values()
    flows = {name: stored_untrained(flow) for name, flow in results.get("flows", {}).items()}
    if not groups or None in flows.values() or any("untrained" not in group for group in groups):
        return None
    return Evaluation(
        samples=results["samples"],
        retrieval=None
        if retrieval is None
        else Retrieval(
            retrieval["images"],
            retrieval["texts"],
            **{name: Measures(retrieval[name]["untrained"], retrieval[name]["chance"]) for name in _DIRECTIONS},
        ),
        classes=next((group["classes"] for group in classified.values() if group is not None), 0),
        zero_shot=_untrained(classified["zero_shot"]),
        neighbours=_untrained(classified["nearest_neighbours"]),
        probe=_untrained(classified["linear_probe"]),
        parts={name: part for name, group in parts.items() if (part := _untrained(group)) is not None},
        flows={name: flow for name, flow in flows.items() if flow is not None},
    )


def _untrained(group: Mapping[str, Any] | None) -> Measures | None:
    return None if group is None else Measures(group["untrained"], group["chance"], baselines=group.get("baselines", {}))


class ResultRow(NamedTuple):
    """A measure in words, as fractions: of the trained model, the untrained one and a random guess. Of a baseline that needs
    no learning only `chance` is a number, its own."""

    title: str
    trained: float | None
    untrained: float | None
    chance: float | None


def result_rows(results: Mapping[str, Any], whose: str = "") -> Iterator[ResultRow]:
    """The rows of what was measured (`results_json`), then those of other flows of the stage and of earlier stages."""
    for direction, title in _DIRECTIONS.items():
        yield from _rows(f"{whose}retrieval, {title}", results.get("retrieval", {}).get(direction, {}))
    for name, (_, title) in _CLASSIFIED.items():
        group = results.get(name, {})
        yield from _rows(f"{whose}{title} (k = {group['k']})" if "k" in group else f"{whose}{title}", group)
    for name, title in PART_TITLES.items():
        yield from _rows(f"{whose}{title}", results.get(name, {}))
    for what in ("flow", "stage"):
        for name, others in results.get(f"{what}s", {}).items():
            yield from result_rows(others, f"{whose}{what} {name}: ")


def results_table(results: dict[str, Any]) -> Table:
    """The results of `results_json` as a table in percent, for `rich`."""
    from rich.table import Table

    table = Table(title=f"held-out results, {results['samples']} samples, percent")
    table.add_column("measure")
    for column in ("trained", "untrained", "chance"):
        table.add_column(column, justify="right")
    for title, *values in result_rows(results):
        table.add_row(title, *map(percent, values))
    if results.get("notes"):
        table.caption, table.caption_justify = "\n".join(results["notes"]), "left"
    return table


def _group(trained: Measures, untrained: Measures | None) -> dict[str, Any]:
    group: dict[str, Any] = {**trained.values, "chance": trained.chance}
    group |= {"baselines": trained.baselines} if trained.baselines else {}
    return group if untrained is None else {**group, "untrained": untrained.values}


def _rows(title: str, group: Mapping[str, Any]) -> Iterator[ResultRow]:
    chance, untrained = group.get("chance", {}), group.get("untrained", {})
    for name in (name for name, value in group.items() if isinstance(value, float)):
        yield ResultRow(f"{title} {name}", group[name], untrained.get(name), chance.get(name))
    for baseline, values in group.get("baselines", {}).items():
        for name, value in values.items():
            yield ResultRow(f"{title} {name}, {baseline}", None, None, value)


def percent(value: float | None) -> str:
    """A fraction in percent; nothing for nothing.

    >>> percent(0.125), percent(None)
    ('12.5', '')
    """
    return "" if value is None else f"{100 * value:.1f}"
