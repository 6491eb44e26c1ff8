"""The measures of a run on held-out data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.evaluation import ClassesDoNotFit, ClassesWithoutNames
from vlmdsl.diagnostics.suggest import suggestion
from vlmdsl.ir import Program
from vlmdsl.runtime.data import (
    EvaluationLoader,
    FieldMapping,
    Loaded,
    Source,
    View,
    some_samples,
    text_inputs,
    view_of,
)
from vlmdsl.runtime.data.classes import has_unnamed_classes, largest_class, renumbered
from vlmdsl.runtime.data.sample import SampleReader
from vlmdsl.runtime.evaluation import (
    DEFAULT_TEMPLATES,
    ClassPrompts,
    Comparison,
    Evaluation,
    Example,
    comparison_of,
    evaluate,
    evaluate_images,
    first_image_tower,
    image_names,
)
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import Data, materials_of
from vlmdsl.runtime.training.evaluation_loaders import Loaders
from vlmdsl.runtime.training.measured_parts import MeasuredPart, measured_parts
from vlmdsl.schema import RunConfig
from vlmdsl.source import Span

__all__ = ["HeldOut", "held_out_measure"]

_LABEL = Loaded(View("label", "Label"))
_PROBE = 2000
"""The default number of training images for a linear classifier, if no text is compared."""


class HeldOut(Protocol):
    """Measures a model on one set of held-out samples; skipped samples are in `batches.report`."""

    @property
    def batches(self) -> EvaluationLoader: ...

    def measure(self, model: VisionLanguageModel, *, untrained: bool = False) -> Evaluation:
        """Measure everything that recipe, data and configuration allow; `untrained` is a model before its first step."""


@dataclass(frozen=True)
class _Fitted:
    """Training images that a linear classifier is fitted to, and the numbers of their classes -> those of the held-out data;
    None where they are the same."""

    batches: EvaluationLoader
    numbers: Mapping[int, int] | None


@dataclass(frozen=True)
class _ImagesAndTexts:
    """Retrieval, and how well classes are told apart: zero-shot, by nearest neighbours and by a linear classifier."""

    batches: EvaluationLoader
    comparison: Comparison
    prompts: ClassPrompts | None
    with_retrieval: bool
    neighbours: int
    fitted: _Fitted | None
    notes: tuple[str, ...]
    look: Callable[[int], Example]
    """The image and the text of a sample."""

    def measure(self, model: VisionLanguageModel, *, untrained: bool = False) -> Evaluation:
        measured = evaluate(
            model,
            self.batches,
            self.comparison,
            with_retrieval=self.with_retrieval,
            prompts=self.prompts,
            neighbours=self.neighbours,
            training=None if self.fitted is None else self.fitted.batches,
            numbers=None if self.fitted is None else self.fitted.numbers,
        )
        matches = None if measured.matches is None else replace(measured.matches, look=self.look)
        return replace(measured, notes=self.notes, matches=matches)


@dataclass(frozen=True)
class _Images:
    """The accuracy of nearest neighbours and of a linear classifier."""

    batches: EvaluationLoader
    tower: str
    field: str
    neighbours: int
    fitted: _Fitted | None
    notes: tuple[str, ...]

    def measure(self, model: VisionLanguageModel, *, untrained: bool = False) -> Evaluation:
        training, numbers = ((), None) if self.fitted is None else (self.fitted.batches, self.fitted.numbers)
        measured = evaluate_images(
            model, self.batches, self.tower, self.field, neighbours=self.neighbours, training=training, numbers=numbers
        )
        return replace(measured, notes=self.notes)


@dataclass(frozen=True)
class _WithParts:
    """The measures of parts of a recipe, beside those of its features, if it has any."""

    parts: tuple[MeasuredPart, ...]
    features: HeldOut | None

    @property
    def batches(self) -> EvaluationLoader:
        return self.parts[0].batches if self.features is None else self.features.batches

    def measure(self, model: VisionLanguageModel, *, untrained: bool = False) -> Evaluation:
        measured = Evaluation(0) if self.features is None else self.features.measure(model)
        measures = {part.name: (untrained and part.measure_untrained) or part.measure for part in self.parts}
        parts = {name: measure(model) for name, measure in measures.items()}
        values = {name: value for name, value in parts.items() if value is not None}
        samples = max((value.facts.get("images", 0) for value in values.values()), default=0)
        return replace(measured, samples=measured.samples or samples, parts=values)


def held_out_measure(program: Program, config: RunConfig, data: Data, model: VisionLanguageModel) -> HeldOut | None:
    """The measure: of images and texts where the recipe compares them, else of images alone where they have classes; and of
    each of its parts that has a measure (`measured_parts`).

    None where nothing is held out, or nothing of this can be measured.
    """
    if data.held_out is None or data.held_out_mapping is None:
        return None
    loaders = Loaders(config, data, model)
    features, parts = _of_features(program, loaders), measured_parts(program, loaders)
    return _WithParts(parts, features) if parts else features


def _of_features(program: Program, loaders: Loaders) -> HeldOut | None:
    """The measure of what the recipe compares, and of classes."""
    config, data, model = loaders.config, loaders.data, loaders.model
    assert data.held_out is not None
    assert data.held_out_mapping is not None
    neighbours = config.evaluation.neighbours if "label" in data.held_out_mapping else 0
    if config.evaluation.classes and "label" in data.held_out_mapping:
        _check_candidates(config.evaluation.classes, data.held_out, data.held_out_mapping)
    comparison = comparison_of(program)
    if comparison is None:
        pictures = first_image_tower(program)
        if pictures is None:
            return None
        tower, field = pictures
        images = {field: loaders.value(View(field, "Image"), tower)}
        fitted, notes = _fitted(loaders, images, _PROBE)
        if not neighbours and fitted is None:
            return None
        loader = loaders.held_out({**images, "label": _LABEL})
        return _Images(loader, tower, field, neighbours, fitted, notes)
    picture = View(comparison.image_field, "Image")
    images = {name: loaders.value(picture, tower) for tower, name in image_names(model, comparison).items()}
    fitted, notes = _fitted(loaders, images, 0)
    source = comparison.text_source
    view = View(comparison.text_field, "Text") if source is None else view_of(source).without_draws()
    text = loaders.value(view, comparison.text_tower)
    values = {**images, comparison.text_field: text}
    if neighbours or fitted is not None:
        values["label"] = _LABEL
    prompts = None
    if config.evaluation.zero_shot and "label" in data.held_out_mapping:
        names, numbers = _named_classes(data, data.held_out, data.held_out_mapping, config.evaluation.classes)
        if names:
            values["label"] = _LABEL
            templates = config.evaluation.templates or DEFAULT_TEMPLATES
            prompts = ClassPrompts(names, text_inputs(text, materials_of(config)), templates, numbers=numbers)
        elif has_unnamed_classes(data.held_out, data.held_out_mapping.columns["label"]):
            notes += ("zero-shot: the classes have numbers but no names; name them with `--map class_name=COLUMN`",)
    loader = loaders.held_out(values)
    look = _look(loaders, comparison.image_field, view if view.kind == "Text" else View(comparison.text_field, "Text"))
    return _ImagesAndTexts(loader, comparison, prompts, config.evaluation.retrieval, neighbours, fitted, notes, look)


def _look(loaders: Loaders, image: str, text: View) -> Callable[[int], Example]:
    """Reads the image, as it comes, and the text of a held-out sample."""
    data = loaders.data
    assert data.held_out is not None
    assert data.held_out_mapping is not None
    values = {"image": Loaded(View(image, "Image")), "text": Loaded(text)}
    reader = SampleReader(data.held_out, data.held_out_mapping, values, materials=materials_of(loaders.config))

    def look(index: int) -> Example:
        sample = reader.read(index, 0, Counter())
        return Example(np.asarray(sample.values["image"]), sample.values["text"].text)

    return look


def _fitted(loaders: Loaders, images: Mapping[str, Loaded], usual: int) -> tuple[_Fitted | None, tuple[str, ...]]:
    """The training images and classes that a linear classifier is fitted to, None if none is; and why not, if a reader
    would expect it."""
    data = loaders.data
    most = usual if loaders.config.evaluation.probe is None else loaders.config.evaluation.probe
    if not most or data.held_out_mapping is None or not ("label" in data.mapping and "label" in data.held_out_mapping):
        return None, ()
    numbers, shared = _shared_classes(data, data.held_out_mapping)
    if not shared:
        return None, ("linear probe: the training data has none of these classes",)
    samples = some_samples(data.train, most), data.mapping
    return _Fitted(loaders.loader(samples, {**images, "label": _LABEL}), numbers), ()


def _named_classes(
    data: Data, held_out: Source, mapping: FieldMapping, candidates: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """The `candidates`, by default the names of the held-out data's classes, and the number of a class in the data -> its
    place among them.

    Raises `DiagnosticError` (V0836) where data that is not the run's own has classes without names.
    """
    named = _named(mapping)
    if not named and data.foreign and has_unnamed_classes(held_out, mapping.columns["label"]):
        help = (
            "`--map class_name=COLUMN`",
            "or name them in order: `--set evaluation.classes=[NAME,NAME]`",
            "or leave out zero-shot classification: `--set evaluation.zero_shot=false`",
        )
        raise DiagnosticError((ClassesWithoutNames.at(Span("<command line>", 0, 0), source=held_out.name, help=help),))
    names = candidates or tuple(dict.fromkeys(named.values()))
    places = {name: place for place, name in enumerate(names)}
    return names, {number: places[name] for number, name in named.items()}


def _named(mapping: FieldMapping) -> dict[int, str]:
    """The number of each class that has a name, and its name."""
    return {number: name for number, name in enumerate(mapping.classes.get("label", ())) if name}


def _check_candidates(candidates: tuple[str, ...], held_out: Source, mapping: FieldMapping) -> None:
    """Raises V0838 for a class of the data, by number or by name, that is not a candidate."""
    missing = sorted(set(_named(mapping).values()) - set(candidates))
    if missing:
        reason = f"the data has the class `{missing[0]}`, which is not in the list"
        help = suggestion(missing[0], candidates, "the classes of the list")
    else:
        largest = largest_class(held_out, mapping.columns["label"], mapping.classes.get("label", ()))
        if largest < len(mapping.classes.get("label", ())):
            return
        reason = f"the data has the class {largest}, and {len(candidates)} names are for 0 to {len(candidates) - 1}"
        help = "name every class, in the order of the numbers, which begin with 0"
    place = Span("<command line>", 0, 0)
    raise DiagnosticError((ClassesDoNotFit.at(place, source=held_out.name, reason=reason, help=(help,)),))


def _shared_classes(data: Data, held_out: FieldMapping) -> tuple[dict[int, int] | None, bool]:
    """Number of a class in the training data -> its number in the held-out data (None: the same), and whether there are any
    in common."""
    own, theirs = (mapping.classes.get("label", ()) for mapping in (data.mapping, held_out))
    if own == theirs:
        return None, bool(own) or not data.foreign
    if not own and not data.foreign and "label" in held_out.numbered:
        return None, True  # numbers mean the same in the run's own data; names are known for the held-out samples alone
    if not own or not theirs:
        return None, False
    return renumbered(own, by=theirs), bool({name for name in own if name} & set(theirs))
