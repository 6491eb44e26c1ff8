"""What a run measures on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vlmdsl.ir import Program
from vlmdsl.runtime.data import EvaluationLoader, FieldMapping, Source, View, some_samples, text_inputs, view_of
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
from vlmdsl.runtime.tokenizer import Tokenizer
from vlmdsl.runtime.training.assembly import Data, image_format, materials_of
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


def held_out_measure(
    program: Program, config: RunConfig, data: Data, tokenizer: Tokenizer, model: VisionLanguageModel
) -> HeldOut | None:
    """The measure: of images and texts where the recipe compares them, else of images alone where they have classes.

    None where nothing is held out, or nothing of this can be measured.
    """
    if data.held_out is None or data.held_out_mapping is None:
        return None
    samples, limit = (data.held_out, data.held_out_mapping), config.evaluation.limit
    names = data.held_out_mapping.classes.get("label", ()) if "label" in data.held_out_mapping else ()
    neighbours = config.evaluation.neighbours if "label" in data.held_out_mapping else 0
    comparison = comparison_of(program)
    if comparison is None:
        pictures = first_image_tower(program)
        fitted = None if pictures is None else _fitted(pictures[1], config, data, tokenizer, model, _PROBE)
        if pictures is None or not (neighbours or fitted is not None):
            return None
        tower, field = pictures
        loader = _loader({field: "Image", "label": "Label"}, config, samples, tokenizer, model, {}, limit)
        return _Images(loader, tower, field, neighbours, fitted)
    fitted = _fitted(comparison.image_field, config, data, tokenizer, model, 0)
    fields = {comparison.image_field: "Image", comparison.text_field: "Text"}
    source = comparison.text_source
    view = View(comparison.text_field, "Text") if source is None else view_of(source).without_draws()
    if neighbours or fitted is not None:
        fields["label"] = "Label"
    prompts = None
    if config.evaluation.zero_shot and names:
        fields["label"] = "Label"
        length = config.model.text_length
        as_inputs = text_inputs(view, tokenizer, image_format(model, config.model), length, materials_of(config))
        prompts = ClassPrompts(names, as_inputs, config.evaluation.templates or DEFAULT_TEMPLATES)
    loader = _loader(fields, config, samples, tokenizer, model, {comparison.text_field: view}, limit)
    return _ImagesAndTexts(loader, comparison, prompts, config.evaluation.retrieval, neighbours, fitted)


def _fitted(
    field: str, config: RunConfig, data: Data, tokenizer: Tokenizer, model: VisionLanguageModel, usual: int
) -> EvaluationLoader | None:
    """The training images and classes that a linear classifier is fitted to; None if none is."""
    most = usual if config.evaluation.probe is None else config.evaluation.probe
    if not most or data.held_out_mapping is None or not ("label" in data.mapping and "label" in data.held_out_mapping):
        return None
    samples = some_samples(data.train, most), data.mapping
    return _loader({field: "Image", "label": "Label"}, config, samples, tokenizer, model, {}, None)


def _loader(
    fields: dict[str, str],
    config: RunConfig,
    samples: tuple[Source, FieldMapping],
    tokenizer: Tokenizer,
    model: VisionLanguageModel,
    views: dict[str, View],
    limit: int | None,
) -> EvaluationLoader:
    return EvaluationLoader(
        *samples,
        fields,
        tokenizer,
        batch=config.evaluation.batch,
        images=image_format(model, config.model),
        text_length=config.model.text_length,
        limit=limit,
        workers=config.data.workers,
        views=views,
        materials=materials_of(config),
    )
