"""Where phrases are in an image: the boxes that a trained model predicts, or what it calls boxes that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from vlmdsl.runtime.data import EvaluationLoader, Materials, map_fields, plain_fields, requirements, values_of_step
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.phrase_scores import Grounding, PhraseScores, phrase_scores
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import ImageFormat
from vlmdsl.types import FieldType

__all__ = ["Box", "GroundedBox", "boxes_named", "boxes_predicted"]

Box = tuple[float, float, float, float]


class GroundedBox(NamedTuple):
    """A box, left, top, right, bottom in pixels of the image, the phrase that names it, and its score in [0, 1]."""

    box: Box
    phrase: str
    score: float


class _OneImage:
    """A source of a single sample."""

    class_names = None

    def __init__(self, sample: Mapping[str, object]) -> None:
        self.name, self.keys, self.columns, self._sample = "an image", ("image",), tuple(sample), sample

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Mapping[str, object]:
        return self._sample

    def folder_of(self, index: int) -> str | None:
        """None: its image is here."""
        return None


def boxes_predicted(
    model: VisionLanguageModel,
    grounding: Grounding,
    materials: Materials,
    pixels: np.ndarray,
    phrases: Sequence[str],
    most: int,
) -> list[GroundedBox]:
    """The best `most` boxes of an image `uint8 [H, W, 3]` with a phrase each, the best first."""
    whole = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
    scores, form = _scores(model, grounding, materials, pixels, phrases, [whole])
    (detections,) = scores.detections()
    assert detections.scores is not None
    left, top, right, bottom = form.shown(pixels.shape[1], pixels.shape[0])
    height, width = pixels.shape[:2]
    places = detections.boxes * torch.tensor([right - left, bottom - top] * 2) + torch.tensor([left, top] * 2)
    places = places.clamp(torch.zeros(4), torch.tensor([width, height] * 2))
    named = zip(places.tolist(), detections.phrases.tolist(), detections.scores.tolist(), strict=True)
    return [GroundedBox((*box,), phrases[phrase], score) for box, phrase, score in list(named)[:most]]


def boxes_named(
    model: VisionLanguageModel,
    grounding: Grounding,
    materials: Materials,
    pixels: np.ndarray,
    phrases: Sequence[str],
    boxes: Sequence[Box],
) -> list[GroundedBox]:
    """The best phrase for each of the `boxes`, left, top, right, bottom in pixels, in their order."""
    scores, form = _scores(model, grounding, materials, pixels, phrases, boxes)
    of_boxes = scores.scores
    if grounding.at_points:
        left, top, right, bottom = form.shown(pixels.shape[1], pixels.shape[0])
        shares = (torch.tensor(boxes) - torch.tensor([left, top] * 2)) / torch.tensor([right - left, bottom - top] * 2)
        of_boxes = scores.scores_at(shares.clamp(0, 1)[None])
    best = of_boxes[0, : len(boxes)].max(dim=1)
    named = zip(boxes, best.indices.tolist(), best.values.tolist(), strict=True)
    return [GroundedBox(box, phrases[phrase], score) for box, phrase, score in named]


def _scores(
    model: VisionLanguageModel,
    grounding: Grounding,
    materials: Materials,
    pixels: np.ndarray,
    phrases: Sequence[str],
    boxes: Sequence[Box],
) -> tuple[PhraseScores, ImageFormat]:
    """The scores of the phrases, and the form in which the tower sees the image. Every other field of the recipe holds
    something that is not read for them."""
    readings = model.readings
    form = next(reading.form for reading in readings if reading.source.type == FieldType("Image"))
    assert isinstance(form, ImageFormat)
    needs = requirements(model.objective.program, views=False)
    usual: dict[str, object] = {
        "Image": pixels,
        "Boxes": [list(box) for box in boxes],
        "Phrases": [phrases[min(place, len(phrases) - 1)] for place in range(len(boxes))],
        "Concepts": list(phrases),
        "Text": ". ".join(phrases),
        "Label": 0,
        "Flag": True,
        "Number": 0.0,
        "Segments": np.zeros(pixels.shape[:2], np.int64),
    }
    source = _OneImage({need.field: usual.get(need.kind) for need in needs})
    mapping = map_fields(source, [need for need in needs if need.kind in usual], limits=materials.limits)
    fields = {name: kind for name, kind in plain_fields(model.objective.program).items() if kind in usual}
    step = values_of_step(readings, fields, segments=model.segment_fields(), boxes=model.boxed_readings())
    values = {name: replace(loaded, view=loaded.view.without_draws(masks=True)) for name, loaded in step.items()}
    with evaluation_mode(model):
        (batch,) = EvaluationLoader(source, mapping, values, batch=1, materials=materials)
        return phrase_scores(model, grounding, phrases, batch), form
