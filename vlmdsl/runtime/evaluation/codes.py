"""The accuracy of predicted codes of patches, beside answers that need no learning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmdsl.ir import Node, Program, Use, encoder_of
from vlmdsl.ir.operations.modules import APPLY, CODES_AT, use_of
from vlmdsl.ir.operations.prediction import TOKEN_LOSS
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.retrieval import Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import Batch, ImageBatch, ReplacedPatches, TowerInput, port, to

__all__ = ["CodePrediction", "code_accuracy", "code_prediction_of"]


@dataclass(frozen=True)
class CodePrediction:
    """What a program predicts of replaced patches: the image as its `tower` takes it, the linear map of the tower's states,
    and the tower that is the tokenizer."""

    source: Node
    tower: str
    linear: Use
    tokenizer: str


def code_prediction_of(program: Program) -> CodePrediction | None:
    """The first prediction of codes of replaced patches by the states of a tower; None if there is none."""
    for node in program.nodes():
        if node.operation is TOKEN_LOSS and node.inputs[1].operation is CODES_AT:
            logits, codes = node.inputs
            encode, tokenized = logits.inputs[0].inputs[0], codes.inputs[0].inputs[0]
            if encode.operation is not APPLY:
                return CodePrediction(
                    encode.inputs[0], encoder_of(encode).tower, use_of(logits), encoder_of(tokenized).tower
                )
    return None


def code_accuracy(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, prediction: CodePrediction
) -> Measures | None:
    """The share of replaced patches of the foreground whose code is predicted, as `accuracy`; None without any such patch.

    Batches hold each image under `name` with the patches to replace, and in the form of the tokenizer under the tokenizer's
    name. A patch is of the foreground if it has another code than most patches of its image: predicting the ground needs no
    model. The baselines are the code of the `nearest visible` patch (the first in reading order of equally near ones), the
    `most frequent visible` code of the image, and the one code that is right most often, as `constant`. The model is left in
    the mode it was in.
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
    """Of each batch the codes that are predicted and those of the tokenizer, int64 [b, P], and which were replaced."""
    tower, tokenizer = model.encoders[prediction.tower], model.encoders[prediction.tokenizer]
    head, device = model.part(prediction.linear), next(model.encoders.parameters()).device
    for batch in batches:
        value, replace = to(batch.values[name], device), to(batch.values[port(name, "replace")], device)
        assert isinstance(value, ImageBatch)
        assert isinstance(replace, ReplacedPatches)
        codes = TowerInput(to(batch.values[prediction.tokenizer], device)).call(tokenizer).codes
        states = TowerInput(value, {"replace": replace}).call(tower).states
        logits = head(states[:, states.shape[1] - codes.shape[1] :])
        yield logits.argmax(dim=2).cpu(), codes.cpu(), replace.replaced.cpu()


def _nearest(codes: Tensor, replaced: Tensor) -> Tensor:
    """For each patch of a square grid the code of the nearest one that was not replaced, [b, P]."""
    side = math.isqrt(codes.shape[1])
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), dim=2).view(-1, 2).float()
    distances = torch.cdist(places, places).expand(len(codes), -1, -1)
    return codes.gather(1, distances.masked_fill(replaced[:, None, :], torch.inf).argmin(dim=2))


def _most_frequent(codes: Tensor, visible: Tensor) -> Tensor:
    """For each image its most frequent visible code, [b, 1]."""
    return torch.stack([own[seen].mode().values for own, seen in zip(codes, visible, strict=True)])[:, None]
