"""What a run measures on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vlmdsl.ir import Program
from vlmdsl.runtime.data import (
    EvaluationLoader,
    FieldMapping,
    InputForm,
    InputForms,
    Source,
    TextFormat,
    View,
    some_samples,
    text_inputs,
    view_of,
)
from vlmdsl.runtime.evaluation import (
    DEFAULT_TEMPLATES,
    ClassPrompts,
    Comparison,
    Evaluation,
    comparison_of,
    evaluate,
    evaluate_images,
    first_image_tower,
)
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.training.assembly import Data, materials_of, usual_forms
from vlmdsl.schema import RunConfig

__all__ = ["HeldOut", "held_out_measure"]

_PROBE = 2000
"""Training images that a linear classifier is fitted to where nothing is said and no text is compared."""


class HeldOut(Protocol):
    """Measures a model on one set of held-out samples; what was skipped is in `batches.report`."""

    @property
    def batches(self) -> EvaluationLoader: ...

    def measure(self, model: VisionLanguageModel) -> Evaluation:
        """As much as recipe, data and configuration allow."""


@dataclass(frozen=True)
class _ImagesAndTexts:
    """Retrieval, and how well classes are told apart: zero-shot, by nearest neighbours and by a linear classifier."""

    batches: EvaluationLoader
    comparison: Comparison
    prompts: ClassPrompts | None
    with_retrieval: bool
    neighbours: int
    training: EvaluationLoader | None

    def measure(self, model: VisionLanguageModel) -> Evaluation:
        return evaluate(
            model,
            self.batches,
            self.comparison,
            with_retrieval=self.with_retrieval,
            prompts=self.prompts,
            neighbours=self.neighbours,
            training=self.training,
        )


@dataclass(frozen=True)
class _Images:
    """The accuracy of nearest neighbours and of a linear classifier."""

    batches: EvaluationLoader
    tower: str
    field: str
    neighbours: int
    training: EvaluationLoader | None

    def measure(self, model: VisionLanguageModel) -> Evaluation:
        fitted = self.training or ()
        return evaluate_images(model, self.batches, self.tower, self.field, neighbours=self.neighbours, training=fitted)


@dataclass(frozen=True)
class _Loaders:
    """Loaders of samples for the towers of a model, each stream in the form of the tower that encodes it."""

    config: RunConfig
    tokenizers: Tokenizers
    model: VisionLanguageModel

    def forms(self, towers: dict[str, tuple[str, str]]) -> dict[str, InputForm]:
        """Stream -> the form in which its tower takes the kind of it, of stream -> (tower, kind)."""
        forms = {stream: self.model.form(tower, kind) for stream, (tower, kind) in towers.items()}
        return {stream: form for stream, form in forms.items() if form is not None}

    def loader(
        self,
        samples: tuple[Source, FieldMapping],
        fields: dict[str, str],
        forms: dict[str, InputForm],
        views: dict[str, View] | None = None,
        limit: int | None = None,
    ) -> EvaluationLoader:
        return EvaluationLoader(
            *samples,
            fields,
            **usual_forms(self.config.model, self.tokenizers),
            forms=forms,
            batch=self.config.evaluation.batch,
            limit=limit,
            workers=self.config.data.workers,
            views=views,
            materials=materials_of(self.config),
        )

    def fitted(self, data: Data, field: str, tower: str, usual: int) -> EvaluationLoader | None:
        """The training images and classes that a linear classifier is fitted to; None if none is."""
        most = usual if self.config.evaluation.probe is None else self.config.evaluation.probe
        if not most or data.held_out_mapping is None or not ("label" in data.mapping and "label" in data.held_out_mapping):
            return None
        samples = some_samples(data.train, most), data.mapping
        return self.loader(samples, {field: "Image", "label": "Label"}, self.forms({field: (tower, "Image")}))

    def inputs(self, view: View, forms: dict[str, InputForm]) -> Callable[[list[str]], tuple[Tensor, Tensor | None]]:
        """What makes of prompts what the tower of a view takes."""
        usual = usual_forms(self.config.model, self.tokenizers)
        texts = TextFormat(usual["tokenizer"], usual["text_length"])
        return text_inputs(view, InputForms(usual["images"], texts, forms), materials_of(self.config))


def held_out_measure(
    program: Program, config: RunConfig, data: Data, tokenizers: Tokenizers, model: VisionLanguageModel
) -> HeldOut | None:
    """The measure: of images and texts where the recipe compares them, else of images alone where they have classes.

    None where nothing is held out, or nothing of this can be measured.
    """
    if data.held_out is None or data.held_out_mapping is None:
        return None
    loaders = _Loaders(config, tokenizers, model)
    samples, limit = (data.held_out, data.held_out_mapping), config.evaluation.limit
    names = data.held_out_mapping.classes.get("label", ()) if "label" in data.held_out_mapping else ()
    neighbours = config.evaluation.neighbours if "label" in data.held_out_mapping else 0
    comparison = comparison_of(program)
    if comparison is None:
        pictures = first_image_tower(program)
        fitted = None if pictures is None else loaders.fitted(data, pictures[1], pictures[0], _PROBE)
        if pictures is None or not (neighbours or fitted is not None):
            return None
        tower, field = pictures
        forms = loaders.forms({field: (tower, "Image")})
        loader = loaders.loader(samples, {field: "Image", "label": "Label"}, forms, limit=limit)
        return _Images(loader, tower, field, neighbours, fitted)
    fitted = loaders.fitted(data, comparison.image_field, comparison.image_tower, 0)
    fields = {comparison.image_field: "Image", comparison.text_field: "Text"}
    source = comparison.text_source
    view = View(comparison.text_field, "Text") if source is None else view_of(source).without_draws()
    forms = loaders.forms(
        {
            comparison.image_field: (comparison.image_tower, "Image"),
            comparison.text_field: (comparison.text_tower, view.kind),
        }
    )
    if neighbours or fitted is not None:
        fields["label"] = "Label"
    prompts = None
    if config.evaluation.zero_shot and names:
        fields["label"] = "Label"
        templates = config.evaluation.templates or DEFAULT_TEMPLATES
        prompts = ClassPrompts(names, loaders.inputs(view, forms), templates)
    loader = loaders.loader(samples, fields, forms, {comparison.text_field: view}, limit)
    return _ImagesAndTexts(loader, comparison, prompts, config.evaluation.retrieval, neighbours, fitted)
