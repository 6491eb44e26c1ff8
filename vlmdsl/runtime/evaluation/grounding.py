"""How well the boxes of held-out images are named: which of several phrases a box gets, and which boxes a phrase."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vlmdsl.backends.torch.step import Step
from vlmdsl.ir import Column, Node, Program, column_of, encoder_of, root_field, walk
from vlmdsl.ir.operations.detection import ASSIGNED_WORDS
from vlmdsl.ir.operations.grounding import CONCEPTS, FOCAL, REGION_DISTILLATION
from vlmdsl.ir.operations.reference import REFERENCE
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.retrieval import Example, Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import (
    Batch,
    ConceptsValue,
    ImageFormat,
    TextFormat,
    Value,
    family_of,
    joined_phrases,
    port,
    to,
    word_maps,
)
from vlmdsl.types import FieldType

__all__ = ["MOST_PHRASES", "Grounding", "average_precision", "box_phrase_accuracy", "grounding_of"]

_EXAMPLES, _SIDE = 12, 192
"""Images that are shown in a picture, and about how many pixels they are wide there."""
MOST_PHRASES = 64
"""The number of phrases that are candidates for every box: the most frequent ones of the held-out data."""


@dataclass(frozen=True)
class Grounding:
    """How a program compares regions with words: the `logits`, the encoded `text` that names regions, or the `table` of
    names that they are compared with, and the fields that hold boxes and phrases.

    Regions may be the points of a grid (`at_points`): a box is then its central point.
    """

    logits: Node
    boxes: str
    phrases: str
    text: Node | None = None
    table: Column | None = None
    at_points: bool = False


def grounding_of(program: Program) -> Grounding | None:
    """The first comparison of boxes with the words that name them; None if a program has none."""
    for node in program.nodes():
        if node.operation is FOCAL:
            logits, words = node.inputs
            word_map = words.inputs[0] if words.operation is ASSIGNED_WORDS else words
            text, boxes = word_map.inputs
            phrases = root_field(text.inputs[0]).string("name")
            return Grounding(logits, boxes.string("name"), phrases, text=text, at_points=words is not word_map)
        if node.operation is REGION_DISTILLATION:
            logits, _, boxes = node.inputs
            tables = [column_of(below) for below in walk([logits]) if below.operation is REFERENCE]
            if tables and tables[0].of_names:
                return Grounding(logits, boxes.string("name"), tables[0].field, table=tables[0])
    return None


def box_phrase_accuracy(
    model: VisionLanguageModel, batches: Iterable[Batch], grounding: Grounding, names: Mapping[int, Sequence[str]]
) -> Measures | None:
    """How often the right phrase is the best of all, and the mean average precision of the phrases; None without a box.

    `names` are those of the boxes of each sample, by its index. The candidates are the `MOST_PHRASES` most frequent ones of
    these; boxes with other names are left out. A phrase is scored by the mean probability of its tokens, as GLIP does. The
    average precision of a phrase is over all boxes, the best first; the mean is over the phrases that occur. The baseline is
    the most frequent phrase. The model is left in the mode it was in.
    """
    counts = Counter(name for own in names.values() for name in own)
    phrases = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_PHRASES]]
    places = {name: place for place, name in enumerate(phrases)}
    scores: list[Tensor] = []
    targets: list[int] = []
    examples: list[Example] = []
    scores_of = partial(_of_text if grounding.table is None else _of_table, model, grounding, phrases)
    with evaluation_mode(model):
        for batch in batches:
            of_batch = scores_of(batch)
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
    facts = {"images": len(names), "boxes": len(targets), "phrases": len(phrases)}
    return Measures(values, chance, facts, {"the most frequent phrase": baseline}, tuple(examples))


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
        precisions.append(float((torch.arange(1, len(ranks) + 1) / ranks).double().mean()))
    return sum(precisions) / len(precisions)


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
        features = Step(model.objective, model).features(model.begin(batch.to(device)))
        return model.objective.value(grounding.logits, features).softmax(dim=2).cpu()
    finally:
        references.fill({table.name: before.values}, before.keys)


def _of_text(model: VisionLanguageModel, grounding: Grounding, phrases: Sequence[str], batch: Batch) -> Tensor:
    """The probability of every phrase for every box of a batch: [b, R, n]."""
    assert grounding.text is not None
    device = next(model.encoders.parameters()).device
    source = grounding.text.inputs[0]
    form = model.form(encoder_of(grounding.text).tower, "Text")
    assert isinstance(form, TextFormat)
    (name,) = {reading.name for reading in model.readings if reading.source is source}
    columns = []
    for texts, named in _in_texts(phrases, form, concepts=source.operation is CONCEPTS):
        values: dict[str, Value] = dict(batch.values)
        values[name], values[port(name, "word_map")] = _repeated(texts, len(batch)), _repeated(named, len(batch))
        columns.append(_probabilities(model, replace(batch, values=values).to(device), grounding, name))
    return torch.cat(columns, dim=2)


def _probabilities(model: VisionLanguageModel, batch: Batch, grounding: Grounding, name: str) -> Tensor:
    """The mean over the tokens of each phrase of the probability that a box is called so: [b, R, n]."""
    features = Step(model.objective, model).features(model.begin(batch))
    logits = model.objective.value(grounding.logits, features)
    words = batch.values[port(name, "word_map")][0]
    assert words is not None
    of_phrases = words.to(logits.dtype)
    total = torch.einsum("brl,bnl->brn", logits.sigmoid(), of_phrases)
    scores = total / of_phrases.sum(dim=2)[:, None, :].clamp(min=1)
    boxes = batch.values[grounding.boxes][0]
    assert boxes is not None
    return (_central(scores, boxes) if grounding.at_points else scores).cpu()


def _central(scores: Tensor, boxes: Tensor) -> Tensor:
    """Of the points of a square grid, [b, P, n], the one that the centre of each box [b, R, 4] is in: [b, R, n]."""
    side = math.isqrt(scores.shape[1])
    across, down = (((boxes[..., :2] + boxes[..., 2:]) / 2 * side).long().clamp(0, side - 1)).unbind(dim=2)
    places = (down * side + across)[..., None].expand(-1, -1, scores.shape[2])
    return scores.gather(1, places)


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
