"""What a run measures on held-out data."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir import Program
from vlmdsl.runtime.data import EvaluationLoader, View, text_inputs, view_of
from vlmdsl.runtime.evaluation import DEFAULT_TEMPLATES, ClassPrompts, Comparison, Evaluation, comparison_of, evaluate
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizer
from vlmdsl.runtime.training.assembly import Data, image_format, materials_of
from vlmdsl.schema import RunConfig

__all__ = ["HeldOut", "held_out_measure"]


@dataclass(frozen=True)
class HeldOut:
    """Measures a model on one set of held-out samples; what was skipped is in `batches.report`."""

    batches: EvaluationLoader
    comparison: Comparison
    prompts: ClassPrompts | None
    with_retrieval: bool

    def measure(self, model: VisionLanguageModel) -> Evaluation:
        """Retrieval and zero-shot accuracy as far as recipe, data and configuration allow."""
        return evaluate(model, self.batches, self.comparison, with_retrieval=self.with_retrieval, prompts=self.prompts)


def held_out_measure(
    program: Program, config: RunConfig, data: Data, tokenizer: Tokenizer, model: VisionLanguageModel
) -> HeldOut | None:
    """The measure, or None where nothing is held out or the recipe compares no image with a text."""
    comparison = comparison_of(program)
    if comparison is None or data.held_out is None or data.held_out_mapping is None:
        return None
    fields = {comparison.image_field: "Image", comparison.text_field: "Text"}
    images, materials = image_format(model, config.model), materials_of(config)
    plain = View(comparison.text_field, "Text")
    view = plain if comparison.text_source is None else view_of(comparison.text_source).without_draws()
    names = data.held_out_mapping.classes.get("label", ()) if "label" in data.held_out_mapping else ()
    wanted = config.evaluation
    prompts = None
    if wanted.zero_shot and names:
        fields["label"] = "Label"
        length = config.model.text_length
        as_inputs = text_inputs(view, tokenizer, images, length, materials)
        prompts = ClassPrompts(names, as_inputs, wanted.templates or DEFAULT_TEMPLATES)
    loader = EvaluationLoader(
        data.held_out,
        data.held_out_mapping,
        fields,
        tokenizer,
        batch=wanted.batch,
        images=images,
        text_length=config.model.text_length,
        limit=wanted.limit,
        workers=config.data.workers,
        views={comparison.text_field: view},
        materials=materials,
    )
    return HeldOut(loader, comparison, prompts, wanted.retrieval)
