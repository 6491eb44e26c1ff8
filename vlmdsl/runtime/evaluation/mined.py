"""Negatives that are mined for a recipe that mines none itself."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Head, root_field
from vlmdsl.planning import applied_of
from vlmdsl.runtime.evaluation.comparison import comparison_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures

__all__ = ["mined_by_comparison"]

_TEMPERATURE = 0.07
"""CLIP's at its start."""


def mined_by_comparison(model: VisionLanguageModel, environment: Environment, generator: torch.Generator) -> Tensor | None:
    """For each text another sample of the batch, [b], whose image is drawn with the probabilities of the recipe's comparison
    of images with texts, at a usual temperature; None for a recipe that compares no pooled features.

    `environment` has the outputs of the towers.
    """
    comparison = comparison_of(model.objective.program)
    if comparison is None or not comparison.pooled or comparison.image_features is not None:
        return None
    image = _features(model, environment, comparison.image_tower, comparison.image_heads, comparison.image_field)
    text = _features(model, environment, comparison.text_tower, comparison.text_heads, comparison.text_field)
    if image is None or text is None:
        return None
    similarities = comparison(EncodedFeatures(pooled=image), EncodedFeatures(pooled=text)).columns.T.float().cpu()
    others = similarities.masked_fill(torch.eye(len(similarities), dtype=torch.bool), -torch.inf)
    drawn = torch.multinomial((others / _TEMPERATURE).softmax(dim=1), 1, generator=generator)[:, 0]
    return drawn.to(image.device)


def _features(
    model: VisionLanguageModel, environment: Environment, tower: str, heads: tuple[Head, ...], field: str
) -> Tensor | None:
    """The pooled features [b, D] of a field by a tower and heads on it; None if a step computes none."""
    for stream in model.streams:
        encoder, name = stream.encoder, root_field(stream.source).string("name")
        compared = (encoder.tower, encoder.heads, name) == (tower, heads, field)
        if compared and stream.pooled and encoder.teacher is None:
            output = environment[applied_of(stream.encode)]
            features: Tensor = output if heads else output.pooled
            return features
    return None
