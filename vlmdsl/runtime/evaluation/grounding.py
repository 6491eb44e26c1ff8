"""How well the boxes of held-out images are named: which of several phrases a box gets, and which boxes a phrase."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vlmdsl.ir import Program, column_of, root_field, walk
from vlmdsl.ir.operations.detection import ASSIGNED_WORDS, TOKEN_CONTRAST_LOSS
from vlmdsl.ir.operations.grounding import FOCAL, REGION_DISTILLATION
from vlmdsl.ir.operations.reference import REFERENCE
from vlmdsl.runtime.evaluation.detection import (
    DetectionPrecision,
    Detections,
    box_prediction_of,
)
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.phrase_scores import Grounding, phrase_scores
from vlmdsl.runtime.evaluation.retrieval import Example, Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import (
    Batch,
    ImageFormat,
)
from vlmdsl.types import FieldType

__all__ = ["MOST_PHRASES", "WITHIN_A_PROMPT", "accuracy_within", "average_precision", "box_phrase_accuracy", "grounding_of"]

_EXAMPLES, _SIDE = 12, 192
"""Images that are shown in a picture, and about how many pixels they are wide there."""
MOST_PHRASES = 64
"""The number of phrases that are candidates for every box: the most frequent ones of the held-out data."""
WITHIN_A_PROMPT = "within a prompt"
"""The measure of names among those of one prompt."""


def grounding_of(program: Program) -> Grounding | None:
    """The first comparison of boxes with the words that name them; None if a program has none."""
    for node in program.nodes():
        if node.operation in (FOCAL, TOKEN_CONTRAST_LOSS):
            logits, words = node.inputs[:2]
            word_map = words.inputs[0] if words.operation is ASSIGNED_WORDS else words
            text, boxes = word_map.inputs
            phrases = root_field(text.inputs[0]).string("name")
            at_points = words is not word_map
            prediction = box_prediction_of(program) if at_points else None
            name, rivals = boxes.string("name"), node.operation is TOKEN_CONTRAST_LOSS
            return Grounding(logits, name, phrases, text, at_points=at_points, prediction=prediction, rivals=rivals)
        if node.operation is REGION_DISTILLATION:
            logits, _, boxes = node.inputs
            tables = [column_of(below) for below in walk([logits]) if below.operation is REFERENCE]
            if tables and tables[0].of_names:
                return Grounding(logits, boxes.string("name"), tables[0].field, table=tables[0])
    return None


def box_phrase_accuracy(
    model: VisionLanguageModel,
    batches: Iterable[Batch],
    grounding: Grounding,
    names: Mapping[int, Sequence[str]],
    precision_of_predicted: DetectionPrecision | None = None,
) -> Measures | None:
    """How often the right phrase is the best of all, and the mean average precision of the phrases over given boxes; with
    `precision_of_predicted` also that of the boxes that the model predicts, if it does. None without a box.

    `names` are those of the boxes of each sample, by its index. The candidates are the `MOST_PHRASES` most frequent ones of
    these; boxes with other names are left out. A phrase is scored by the mean probability of its tokens, as GLIP does. The
    average precision of a phrase is over all boxes, the best first; the mean is over the phrases that occur. The baseline is
    the most frequent phrase. Where a text has no room for all phrases, so that several prompts hold them, `within a prompt`
    is how often the right phrase is the best of those in its prompt: a model whose prompts always held the names of the
    boxes has not learned to compare scores of one prompt with those of another. The model is left in the mode it was in.
    """
    counts = Counter(name for own in names.values() for name in own)
    phrases = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_PHRASES]]
    places = {name: place for place, name in enumerate(phrases)}
    scores: list[Tensor] = []
    targets: list[int] = []
    examples: list[Example] = []
    predicted: list[Detections] = []
    annotated: list[Detections] = []
    prompts: Tensor | None = None
    with evaluation_mode(model):
        for batch in batches:
            of_regions = phrase_scores(model, grounding, phrases, batch)
            prompts = of_regions.prompts
            boxes = batch.values[grounding.boxes][0]
            assert boxes is not None
            of_batch = of_regions.scores_at(boxes) if grounding.at_points else of_regions.scores
            if precision_of_predicted is not None and of_regions.boxes is not None:
                predicted += of_regions.detections()
                annotated += _annotated(batch.index.tolist(), boxes, names, places)
            if not examples:
                best = [[phrases[place] for place in row] for row in of_batch.argmax(dim=2).tolist()]
                examples = _examples(model, batch, grounding, best, names)
            for row, index in enumerate(batch.index.tolist()):
                for region, name in enumerate(names.get(index, ())):
                    if name in places and region < of_batch.shape[1]:
                        scores.append(of_batch[row, region])
                        targets.append(places[name])
    if not targets:
        return None
    matrix, truth = torch.stack(scores), torch.tensor(targets)
    precision = average_precision(matrix, truth)
    values = {"accuracy": float((matrix.argmax(dim=1) == truth).double().mean()), "mAP": precision}
    share = truth.bincount(minlength=len(phrases)).double() / len(truth)
    baseline = {"accuracy": float(share.max())}
    chance = {"accuracy": 1 / len(phrases), "mAP": float(share[share > 0].mean())}
    if prompts is not None and bool(prompts.any()):
        values[WITHIN_A_PROMPT], chance[WITHIN_A_PROMPT] = accuracy_within(prompts, matrix, truth)
    if precision_of_predicted is not None and annotated:
        of_predicted = precision_of_predicted(predicted, annotated)
        values |= of_predicted
        chance |= dict.fromkeys(of_predicted, 0.0)  # of boxes that are drawn at random next to none overlaps one enough
    facts = {"images": len(names), "boxes": len(targets), "phrases": len(phrases)}
    return Measures(values, chance, facts, {"the most frequent phrase": baseline}, tuple(examples))


def _annotated(
    indices: Sequence[int], boxes: Tensor, names: Mapping[int, Sequence[str]], places: Mapping[str, int]
) -> list[Detections]:
    """The boxes [b, R, 4] of each sample that have a name among the candidates, and that its tower sees."""
    annotated = []
    for row, index in enumerate(indices):
        named = {region: places[name] for region, name in enumerate(names.get(index, ())) if name in places}
        regions = [region for region in named if region < boxes.shape[1] and bool(boxes[row, region].any())]
        phrases = torch.tensor([named[region] for region in regions], dtype=torch.int64)
        annotated.append(Detections(boxes[row, regions], phrases))
    return annotated


def _examples(
    model: VisionLanguageModel,
    batch: Batch,
    grounding: Grounding,
    best: Sequence[Sequence[str]],
    names: Mapping[int, Sequence[str]],
) -> list[Example]:
    """The first images of a batch with their boxes, and the best phrase for each; a wrong one beside the right one."""
    reading = next(reading for reading in model.readings if reading.source.type == FieldType("Image"))
    pixels, boxes = batch.values[reading.name][0], batch.values[grounding.boxes][0]
    assert isinstance(reading.form, ImageFormat)
    assert pixels is not None
    assert boxes is not None
    examples = []
    for row, index in enumerate(batch.index.tolist()[:_EXAMPLES]):
        levels = pixels[row].permute(1, 2, 0).numpy() * np.array(reading.form.deviation) + np.array(reading.form.mean)
        image = (255 * levels.clip(0, 1)).astype(np.uint8)
        enlarged = image.repeat(max(_SIDE // len(image), 1), axis=0).repeat(max(_SIDE // len(image), 1), axis=1)
        lines = []
        for box, said, name in zip(boxes[row].tolist(), best[row], names.get(index, ()), strict=False):
            _outline(enlarged, box)
            lines.append(said if said == name else f"{said} (is {name})")
        examples.append(Example(enlarged, "\n".join(lines)))
    return examples


def _outline(image: np.ndarray, box: Sequence[float]) -> None:
    """Draws the edges of a box, shares of the image, into it."""
    height, width = image.shape[:2]
    left, right = (min(max(round(share * width), 0), width - 1) for share in (box[0], box[2]))
    top, bottom = (min(max(round(share * height), 0), height - 1) for share in (box[1], box[3]))
    image[[top, bottom], left : right + 1] = image[top : bottom + 1, [left, right]] = 0


def accuracy_within(prompts: Tensor, scores: Tensor, truth: Tensor) -> tuple[float, float]:
    """How often the class of n samples [n] has the best of the `scores` [n, C] of the classes in its prompt, and how often a
    random one of these is right; `prompts [C]` is which prompt holds each class.

    >>> accuracy_within(torch.tensor([0, 0, 1]), torch.tensor([[0.5, 0.4, 0.9], [0.5, 0.4, 0.9]]), torch.tensor([0, 1]))
    (0.5, 0.5)
    """
    beside = prompts == prompts[truth][:, None]
    right = scores.masked_fill(~beside, -math.inf).argmax(dim=1) == truth
    return float(right.double().mean()), float(beside.sum(dim=1).double().reciprocal().mean())


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """The mean over classes of the area under precision and recall, of `scores` [n, C] and classes [n]: for each class the
    mean precision at its members when all are ranked by the score of the class; equal scores are ranked as they come.

    >>> average_precision(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]]), torch.tensor([0, 1, 0]))
    0.6666666666666666
    """
    precisions = []
    for place in truth.unique().tolist():
        positive = truth[scores[:, place].argsort(descending=True, stable=True)] == place
        ranks = positive.nonzero().squeeze(1) + 1
        precisions.append(float((torch.arange(1, len(ranks) + 1, dtype=torch.float64) / ranks).mean()))
    return sum(precisions) / len(precisions)
