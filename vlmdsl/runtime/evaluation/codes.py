"""The accuracy of predicted codes of patches, beside answers that need no learning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmdsl.ir import Node, Program, Use, encoder_of, uses_of
from vlmdsl.ir.operations.modules import APPLY, CODES_AT, patches_of, use_of
from vlmdsl.ir.operations.prediction import DISTILL, TOKEN_LOSS
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.retrieval import Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, KeptPatches, TowerInput, port, to
from vlmdsl.types import MaskType

__all__ = ["CodePrediction", "code_accuracy", "code_prediction_of"]


@dataclass(frozen=True)
class CodePrediction:
    """What a program predicts of replaced or dropped patches: the image as its `tower` takes it, the linear map of the
    tower's states, or of those that a `decoder` gives, and the tower that is the tokenizer. Where a teacher has a
    distribution over the codes, `teacher` are the uses of its tower and of its map: a code is the most likely one."""

    source: Node
    tower: str
    linear: Use
    tokenizer: str
    decoder: Use | None = None
    teacher: tuple[Use, Use] | None = None


def code_prediction_of(program: Program) -> CodePrediction | None:
    """The first prediction of codes of replaced or dropped patches by the states of a tower; None if there is none."""
    for node in program.nodes():
        hard = node.operation is TOKEN_LOSS and node.inputs[1].operation is CODES_AT
        if not (hard or (node.operation is DISTILL and isinstance(node.inputs[2].type, MaskType))):
            continue
        logits, below = node.inputs[0], node.inputs[0].inputs[0]
        encode = patches_of(logits)
        decoder = use_of(below) if below.operation is APPLY else None
        if decoder is None and below.inputs[0] is not encode:  # of an image and a text in one sequence
            continue
        tokenized = node.inputs[1].inputs[0].inputs[0]
        tower = uses_of(encoder_of(tokenized))[0]
        teacher = None if hard else (tower, use_of(node.inputs[1]))
        return CodePrediction(
            encode.inputs[0], encoder_of(encode).tower, use_of(logits), tower.module.name, decoder, teacher
        )
    return None


def code_accuracy(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, prediction: CodePrediction
) -> Measures | None:
    """The share of missing patches of the foreground whose code is predicted, as `accuracy`; None without any such patch.

    Batches hold each image under `name` with the patches to replace or to keep, and in the form of the tokenizer under the
    tokenizer's name. A patch is of the foreground if it has another code than most patches of its image: predicting the
    ground needs no model. The baselines are the code of the `nearest visible` patch (the first in reading order of equally
    near ones), the `most frequent visible` code of the image, and the one code that is right most often, as `constant`. The
    model is left in the mode it was in.
    """
    hits = dict.fromkeys(("trained", "nearest visible", "most frequent visible"), 0)
    counted, images = Counter[int](), 0
    with evaluation_mode(model):
        for predicted, codes, replaced in _predicted(model, batches, name, prediction):
            images += len(codes)
            foreground = replaced & (codes != codes.mode(dim=1, keepdim=True).values)
            counted.update(codes[foreground].tolist())
            answers = {"trained": predicted, "nearest visible": _nearest(codes, replaced)}
            answers["most frequent visible"] = _most_frequent(codes, ~replaced)
            for answer, entries in answers.items():
                hits[answer] += int((entries == codes)[foreground].sum())
    total = counted.total()
    if not total:
        return None
    shares = {answer: count / total for answer, count in hits.items()} | {"constant": max(counted.values()) / total}
    trained = shares.pop("trained")
    size = getattr(prediction.linear.module.settings, "size", 0)
    return Measures(
        {"accuracy": trained},
        {"accuracy": 1 / size},
        {"images": images, "patches": total},
        {answer: {"accuracy": share} for answer, share in shares.items()},
    )


def _predicted(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, prediction: CodePrediction
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each batch the codes that are predicted and those to predict, int64 [b, P], and which patches were missing."""
    tower, device = model.encoders[prediction.tower], next(model.encoders.parameters()).device
    for batch in batches:
        image, whole = (to(batch.values[each], device) for each in (name, prediction.tokenizer))
        masks = {what: to(batch.values[port(name, what)], device) for what in _MASKS if port(name, what) in batch.values}
        assert isinstance(image, ImageBatch)
        codes = _codes(model, TowerInput(whole), prediction)
        (missing,) = masks.values()
        states = TowerInput(image, masks).call(tower).states
        if isinstance(missing, KeptPatches) and prediction.decoder is not None:
            states = model.part(prediction.decoder)(states, missing.places)
        logits = model.part(prediction.linear)(states[:, -codes.shape[1] :])
        absent = missing.dropped(codes.shape[1]) if isinstance(missing, KeptPatches) else missing[0]
        assert absent is not None
        yield logits.argmax(dim=2).cpu(), codes.cpu(), absent.cpu()


def _codes(model: VisionLanguageModel, image: TowerInput, prediction: CodePrediction) -> Tensor:
    """The codes [b, P] of all patches of an image, by the tokenizer or by the teacher."""
    if prediction.teacher is None:
        codes: Tensor = image.call(model.encoders[prediction.tokenizer]).codes
        return codes
    tower, linear = (model.part(use) for use in prediction.teacher)
    form = model.form(prediction.tokenizer, "Image")
    assert isinstance(form, ImageFormat)
    assert isinstance(image.value, ImageBatch)
    likely: Tensor = linear(image.call(tower).states[:, -form.patches_of(image.value.pixels) :]).argmax(dim=2)
    return likely


_MASKS = ("replace", "keep")
"""The ports of an image of which patches are missing."""


def _nearest(codes: Tensor, replaced: Tensor) -> Tensor:
    """For each patch of a square grid the code of the nearest one that was not replaced, [b, P]."""
    side = math.isqrt(codes.shape[1])
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), dim=2).view(-1, 2).float()
    distances = torch.cdist(places, places).expand(len(codes), -1, -1)
    return codes.gather(1, distances.masked_fill(replaced[:, None, :], torch.inf).argmin(dim=2))


def _most_frequent(codes: Tensor, visible: Tensor) -> Tensor:
    """For each image its most frequent visible code, [b, 1]."""
    return torch.stack([own[seen].mode().values for own, seen in zip(codes, visible, strict=True)])[:, None]
