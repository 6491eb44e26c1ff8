"""Boxes that a model predicts in held-out images, each with a phrase: COCO's average precision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.detection import decoded_boxes, pairwise_overlap
from vlmdsl.backends.torch.ops.set_matching import corners
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.ir import Node, Program
from vlmdsl.ir.operation import Operation
from vlmdsl.ir.operations.detection import BOX_ERROR, CENTRENESS, GIOU, MATCHED_IOU, SOFT_TOKEN_LOSS
from vlmdsl.source import Span

__all__ = ["BoxPrediction", "Detections", "DetectionPrecision", "box_prediction_of", "best_detections", "coco_precision"]

_MOST, _CANDIDATES = 100, 400
"""Detections of an image that count, as in COCO, and how many of the best are looked at for them."""
_SAME = 0.6
"""Of two boxes of one phrase that overlap by more, the one with the lower score is left out, as in ATSS and GLIP."""


@dataclass(frozen=True)
class BoxPrediction:
    """The boxes that the points of a grid predict: `places`, four numbers per point.

    With a `scale` they are relative to anchors of so many patches, and a phrase may have several points with nearly the same
    box; without one they are logits of centre and size, of points that are matched with boxes one to one. `certain_by` is
    the node, if there is one, that says whether a point has a box at all: its centreness, or logits whose last is that of no
    object.
    """

    places: Node
    scale: float | None = None
    certain_by: Node | None = None

    @property
    def matched(self) -> bool:
        """Whether points are matched with boxes one to one."""
        return self.scale is None

    def boxes(self, places: Tensor) -> Tensor:
        """What `places [b, P, 4]` mean: left, top, right, bottom as shares of the image."""
        return corners(places.float().sigmoid()) if self.scale is None else decoded_boxes(places.float(), self.scale)

    def confidence(self, logits: Tensor) -> Tensor:
        """How sure each point is that it has a box, from the `logits [b, P, n]` of `certain_by`: [b, P]."""
        logits = logits.float()
        return logits[..., 0].sigmoid() if logits.shape[2] == 1 else 1 - logits.softmax(dim=2)[..., -1]


@dataclass(frozen=True)
class Detections:
    """Of one image: `boxes [n, 4]`, left, top, right, bottom; the number of the phrase of each, `phrases [n]`; and for
    predictions their `scores [n]`."""

    boxes: Tensor
    phrases: Tensor
    scores: Tensor | None = None


DetectionPrecision: TypeAlias = Callable[[Sequence[Detections], Sequence[Detections]], Mapping[str, float]]
"""From the predictions and the true boxes of each image to measures by name."""


def box_prediction_of(program: Program) -> BoxPrediction | None:
    """What the program predicts boxes by; None if it predicts none."""
    nodes = list(program.nodes())

    def certain_by(operation: Operation) -> Node | None:
        return next((node.inputs[0] for node in nodes if node.operation is operation), None)

    for node in nodes:
        if node.operation is GIOU:
            return BoxPrediction(node.inputs[0], node.number("scale"), certain_by(CENTRENESS))
        if node.operation in (BOX_ERROR, MATCHED_IOU):
            return BoxPrediction(node.inputs[0], certain_by=certain_by(SOFT_TOKEN_LOSS))
    return None


def best_detections(scores: Tensor, boxes: Tensor, *, suppress: bool) -> Detections:
    """The best detections of one image, from the probability of each phrase at each point, `scores [P, n]`, and the box of
    each point, `boxes [P, 4]`.

    With `suppress`, of the boxes of one phrase that overlap the best one stays (non-maximum suppression).

    >>> same = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.49]])
    >>> best = best_detections(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), same, suppress=True)
    >>> best.phrases.tolist(), [round(score, 1) for score in best.scores.tolist()]
    ([0, 1], [0.9, 0.2])
    """
    best = scores.flatten().topk(min(_CANDIDATES, scores.numel()))
    points, phrases = best.indices // scores.shape[1], best.indices % scores.shape[1]
    kept = torch.ones(len(points), dtype=torch.bool)
    if suppress:
        # Of pairs of one phrase only: column k is left out by the rows before it that stay.
        clash = (pairwise_overlap(boxes[points], boxes[points]) > _SAME) & (phrases[:, None] == phrases)
        for place in range(len(points)):
            if kept[place]:
                kept[place + 1 :] &= ~clash[place, place + 1 :]
    places = kept.nonzero().squeeze(1)[:_MOST]
    return Detections(boxes[points[places]], phrases[places], best.values[places])


def coco_precision(predicted: Sequence[Detections], truth: Sequence[Detections]) -> dict[str, float]:
    """COCO's average precision by pycocotools: `AP`, the mean over overlaps (IoU) from 0.50 to 0.95, and `AP50`, `AP75`
    with one of them; each a mean over the phrases that have a true box.

    Raises `DiagnosticError` (V0901) where the package is missing.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as fault:
        help = ("install it with `pip install 'vlmdsl[detection]'`", "or leave out `evaluation.average_precision=true`")
        place = Span("<command line>", 0, 0)
        missing = PackageMissing.at(place, what="average precision", package="pycocotools", help=help)
        raise DiagnosticError((missing,)) from fault
    annotations, results = ([*_annotations(images)] for images in (truth, predicted))
    categories = sorted({annotation["category_id"] for annotation in annotations})
    if not categories:
        return {}
    if not results:
        return dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        data = COCO()
        data.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(truth))],
            "categories": [{"id": number} for number in categories],
            "annotations": annotations,
        }
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(("AP", "AP50", "AP75"), evaluation.stats, strict=False)}


def _annotations(images: Sequence[Detections]) -> list[dict[str, Any]]:
    """Boxes in the form of COCO: left, top, width, height."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        sizes = (image.boxes[:, 2:] - image.boxes[:, :2]).clamp(min=0)
        boxes = torch.cat([image.boxes[:, :2], sizes], dim=1).double().tolist()
        scores = [None] * len(boxes) if image.scores is None else image.scores.tolist()
        for box, phrase, score in zip(boxes, image.phrases.tolist(), scores, strict=True):
            own = {"image_id": number, "category_id": phrase, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append(own | {"id": len(annotations) + 1} | ({} if score is None else {"score": score}))
    return annotations
