"""The probability of each of several phrases for the regions of held-out images, or for the points of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.detection import pairwise_overlap
from vlmdsl.backends.torch.step import Step
from vlmdsl.ir import Column, Node, encoder_of
from vlmdsl.ir.operations.grounding import CONCEPTS
from vlmdsl.runtime.evaluation.detection import BoxPrediction, Detections, best_detections
from vlmdsl.runtime.evaluation.steps import drawn_numbers, unmasked
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import (
    Batch,
    ConceptsValue,
    TextFormat,
    Value,
    family_of,
    joined_phrases,
    port,
    to,
    word_maps,
)

__all__ = ["Grounding", "PhraseScores", "phrase_scores"]


@dataclass(frozen=True)
class Grounding:
    """How a program compares regions with words: the `logits`, the encoded `text` that names regions, or the `table` of
    names that they are compared with, and the fields that hold boxes and phrases.

    Regions may be the points of a grid (`at_points`), which may predict boxes by the `prediction`. A box is then its central
    point or, of points that are matched with boxes one to one, those that predict it. Words that are learned as `rivals`,
    by a softmax over them, say which phrase a region has; others, whether it has this one.
    """

    logits: Node
    boxes: str
    phrases: str
    text: Node | None = None
    table: Column | None = None
    at_points: bool = False
    prediction: BoxPrediction | None = None
    rivals: bool = False


_PREDICTED = 0.5
"""A point predicts a box if the two overlap by so much: that of COCO's AP50."""


@dataclass(frozen=True)
class PhraseScores:
    """The probability of n phrases for each region of b images, `scores [b, R, n]`, or for each point of a grid.

    Of points that predict boxes, `boxes [b, P, 4]` are these, left, top, right, bottom as shares of the image, and
    `confidence [b, P]` is how sure each point is that it has one. Points that are `matched` with boxes one to one may be far
    from them. `prompts [n]` is which text each phrase was read in: all in one, unless there are more than it has room for.
    """

    scores: Tensor
    boxes: Tensor | None = None
    confidence: Tensor | None = None
    matched: bool = False
    prompts: Tensor | None = None

    def scores_at(self, boxes: Tensor) -> Tensor:
        """The scores of the point that stands for each of the boxes [b, R, 4]: [b, R, n].

        This is the central point. Of matched ones, of which one is for a box and its neighbours are for none, it is for each
        phrase the most certain one that predicts the box; if none does, the one whose box overlaps it most.
        """
        if not self.matched or self.boxes is None:
            places = central_points(boxes, self.scores.shape[1])
            return self.scores.gather(1, places[..., None].expand(-1, -1, self.scores.shape[2]))
        overlaps = pairwise_overlap(boxes, self.boxes)
        nearest = overlaps >= overlaps.amax(dim=2, keepdim=True).clamp(max=_PREDICTED)
        certain = self.scores if self.confidence is None else self.scores * self.confidence[..., None]
        return torch.where(nearest[..., None], certain[:, None], 0.0).amax(dim=2)

    def detections(self) -> list[Detections]:
        """The best detections of each image, scored as in ATSS by the square root of probability times confidence."""
        assert self.boxes is not None
        scores = self.scores if self.confidence is None else (self.scores * self.confidence[..., None]).sqrt()
        return [best_detections(*image, suppress=not self.matched) for image in zip(scores, self.boxes, strict=True)]


def central_points(boxes: Tensor, points: int) -> Tensor:
    """The point of a square grid of so many that the centre of each box [b, R, 4] is in: [b, R].

    >>> central_points(torch.tensor([[[0.5, 0.0, 1.0, 0.5]]]), 16).tolist()
    [[7]]
    """
    side = math.isqrt(points)
    across, down = (((boxes[..., :2] + boxes[..., 2:]) / 2 * side).long().clamp(0, side - 1)).unbind(dim=2)
    return down * side + across


def phrase_scores(model: VisionLanguageModel, grounding: Grounding, phrases: Sequence[str], batch: Batch) -> PhraseScores:
    """The probability of every phrase for the regions of a batch, or for the points of a grid."""
    if grounding.table is not None:
        return PhraseScores(_of_table(model, grounding, phrases, batch))
    return _of_text(model, grounding, phrases, batch)


def _of_table(model: VisionLanguageModel, grounding: Grounding, phrases: Sequence[str], batch: Batch) -> Tensor:
    """The probability of every phrase for every box of a batch, [b, R, n]: the phrases take the place of the table."""
    references, table = model.objective.references, grounding.table
    assert table is not None
    form, device = model.form(table.encoder.tower, "Text"), next(model.encoders.parameters()).device
    assert isinstance(form, TextFormat)
    entries = model.encode(table.encoder.tower, to(form.encode(phrases), device)).pooled
    assert entries is not None
    before = references.read()[table.name]
    try:
        references.fill({table.name: entries}, torch.arange(len(phrases)))
        features = _outputs(model, batch.to(device))
        return model.objective.value(grounding.logits, features).softmax(dim=2).cpu()
    finally:
        references.fill({table.name: before.values}, before.keys)


def _of_text(model: VisionLanguageModel, grounding: Grounding, phrases: Sequence[str], batch: Batch) -> PhraseScores:
    assert grounding.text is not None
    device = next(model.encoders.parameters()).device
    source = grounding.text.inputs[0]
    form = model.form(encoder_of(grounding.text).tower, "Text")
    assert isinstance(form, TextFormat)
    (name,) = {reading.name for reading in model.readings if reading.source is source}
    parts: list[PhraseScores] = []
    for texts, named in _in_texts(phrases, form, concepts=source.operation is CONCEPTS):
        values: dict[str, Value] = dict(batch.values)
        values[name], values[port(name, "word_map")] = _repeated(texts, len(batch)), _repeated(named, len(batch))
        parts.append(_of_batch(model, replace(batch, values=values).to(device), grounding, name))
    scores = torch.cat([part.scores for part in parts], dim=2)
    sizes = torch.tensor([part.scores.shape[2] for part in parts])
    prompts = torch.arange(len(parts)).repeat_interleave(sizes)
    return replace(parts[0], scores=scores.softmax(dim=2) if grounding.rivals else scores, prompts=prompts)


def _of_batch(model: VisionLanguageModel, batch: Batch, grounding: Grounding, name: str) -> PhraseScores:
    """The scores of the phrases of the text that has this name in a batch; of rivals their logits."""
    features = _outputs(model, batch)
    logits = model.objective.value(grounding.logits, features)
    words = batch.values[port(name, "word_map")][0]
    assert words is not None
    of_phrases = words.to(logits.dtype)
    total = torch.einsum("brl,bnl->brn", logits if grounding.rivals else logits.sigmoid(), of_phrases)
    scores = total / of_phrases.sum(dim=2)[:, None, :].clamp(min=1)
    prediction = grounding.prediction
    if prediction is None:
        return PhraseScores(scores.cpu())
    boxes = prediction.boxes(model.objective.value(prediction.places, features)).cpu()
    confidence = None
    if prediction.certain_by is not None:
        confidence = prediction.confidence(model.objective.value(prediction.certain_by, features)).cpu()
    return PhraseScores(scores.cpu(), boxes, confidence, prediction.matched)


def _outputs(model: VisionLanguageModel, batch: Batch) -> dict[str, Any]:
    """What a step takes of its modules on a batch of which nothing is masked."""
    values = unmasked(dict(batch.values))
    drawn = drawn_numbers(model, len(batch), torch.Generator().manual_seed(0))
    draws = {name: draw.to(batch.index.device) for name, draw in drawn.items()}
    return Step(model.objective, model).outputs(model.begin(replace(batch, values=values, draws=draws)))


def _in_texts(phrases: Sequence[str], form: TextFormat, *, concepts: bool) -> Iterator[tuple[Value, Value]]:
    """The phrases as concepts, or in as few prompts as a text has room for, each with the map of its phrases."""
    if concepts:
        value = ConceptsValue(tuple(phrases), len(phrases), tuple((place,) for place in range(len(phrases))))
        yield family_of("Concepts").collate([value], form), word_maps([value], form)
        return
    left = list(phrases)
    while left:
        size = len(left)
        while size > 1 and form.tokenizer.lengths([joined_phrases(left[:size], left[:size]).text])[0] > form.length:
            size = (size + 1) // 2 if size > 8 else size - 1
        text = joined_phrases(left[:size], left[:size])
        yield family_of("Text").collate([text], form), word_maps([text], form)
        left = left[size:]


def _repeated(value: Value, count: int) -> Value:
    """The value of one sample for so many."""
    repeated = [None if tensor is None else tensor.expand(count, *tensor.shape[1:]) for tensor in value]
    return type(value)(*repeated)  # type: ignore[arg-type]  # a named tuple takes its members one by one
