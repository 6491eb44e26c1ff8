"""`classify`: the classes that a trained model gives to pictures. Torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmdsl.api.load import load
from vlmdsl.api.runs import data_of_call
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.evaluation import ClassNamesUnusable
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.schema import DataSources
from vlmdsl.schema.class_names import HOW_TO_NAME, named_classes
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile

__all__ = ["Classification", "classify"]


@dataclass(frozen=True)
class Classification:
    """The probability of each of the `classes` for each picture, by its key; `skipped` tells why others have none."""

    classes: tuple[str, ...]
    probabilities: dict[str, tuple[float, ...]]
    skipped: dict[str, str]
    remarks: tuple[str, ...] = ()
    """The skipped pictures by reason, one line each."""

    def to_json(self) -> dict[str, Any]:
        """Every probability, for a machine."""
        pictures = {key: dict(zip(self.classes, row, strict=True)) for key, row in self.probabilities.items()}
        return {"pictures": pictures, "skipped": self.skipped}

    def to_text(self, most: int = 1) -> str:
        """A line per picture with its likeliest classes, at most so many of them; then what was skipped."""
        rows = [(displayed(key), self._likeliest(row, most)) for key, row in self.probabilities.items()]
        width = max((len(key) for key, _ in rows), default=0)
        return "\n".join([*(f"{key:{width}}  {answer}" for key, answer in rows), *self.remarks])

    def _likeliest(self, row: Sequence[float], most: int) -> str:
        ranked = sorted(zip(self.classes, row, strict=True), key=lambda pair: -pair[1])[:most]
        return "  ".join(f"{displayed(name)} {100 * probability:.1f} %" for name, probability in ranked)


def classify(
    run: str | Path,
    data: DataSources,
    classes: str | Iterable[str],
    *,
    templates: str | Iterable[str] = (),
    map: Mapping[str, str] | None = None,
    device: str | None = None,
) -> Classification:
    """The probability of every class for every picture of a folder, or of other data.

    Pictures that cannot be read are skipped and named. Raises `DiagnosticError` as `load` does, V0861 where the recipe
    compares no images with texts, V0860 for classes or templates that cannot be used, V0820 where no picture can be read,
    and those of data that cannot be opened.

    Args:
        run: the run folder.
        data: a folder of pictures, or other data in the formats of `train`.
        classes: the names of the classes, or as one text with commas between, or a file of them (V0867 if it has none).
        templates: prompts with one `{}` for the name of a class; those of the evaluation if left out.
        map: `image` -> the column of the pictures, if it has another name.
        device: see `load`.

    >>> import tempfile, vlmdsl
    >>> from vlmdsl.api.classify import classify
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> result = classify(run.folder, "shapes:samples=3", ["circle", "square"])
    >>> len(result.probabilities), result.skipped
    (3, {})
    """
    own = data_of_call(data, map)
    classes = _named(classes) if isinstance(classes, str) else tuple(classes)
    prompts = (templates,) if isinstance(templates, str) else tuple(templates)
    model, trained = load(run, device=device), import_module("vlmdsl.runtime.trained")
    probabilities_of = model.classifier(classes, *([prompts] if prompts else []))
    pictures = trained.EncodedData(model, own.train, own.map)
    probabilities: dict[str, tuple[float, ...]] = {}
    for places, features in pictures:
        rows = probabilities_of(features).tolist()
        probabilities |= {key: tuple(row) for key, row in zip(pictures.keys(places), rows, strict=True)}
    report = pictures.report
    return Classification(classes, probabilities, dict(report.samples), tuple(report.table().splitlines()))


def _named(text: str) -> tuple[str, ...]:
    try:
        return named_classes(text)
    except BadFile as fault:
        place = Span("<command line>", 0, 0)
        unusable = ClassNamesUnusable.at(place, classes=text, reason=fault.reason, help=(HOW_TO_NAME,))
        raise DiagnosticError((unusable,)) from fault
