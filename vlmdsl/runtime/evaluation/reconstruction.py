"""The error of reconstructed patches, beside that of the mean image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmdsl.backends.torch import ops
from vlmdsl.ir import Module, Node, Program, Use, encoder_of
from vlmdsl.ir.operations.modules import RECONSTRUCT, use_of
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.retrieval import Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import Batch, ImageBatch, KeptPatches, PatchSegments, TowerInput, Value, port, to

__all__ = ["Reconstruction", "masked_error", "reconstruction_of"]


@dataclass(frozen=True)
class Reconstruction:
    """What a program predicts of dropped patches: the tower of those that are kept, the decoder, and the target.

    `source` is the image as the tower takes it, its views included.
    """

    source: Node
    tower: str
    decoder: Module
    normalised: str


def reconstruction_of(program: Program) -> Reconstruction | None:
    """The first reconstruction of a program; None if it has none."""
    for node in program.nodes():
        if node.operation is RECONSTRUCT:
            decoded, target = node.inputs[:2]
            encode = target.inputs[0]
            return Reconstruction(
                encode.inputs[0], encoder_of(encode).tower, use_of(decoded).module, target.string("normalised")
            )
    return None


def masked_error(
    model: VisionLanguageModel,
    batches: Iterable[Batch],
    name: str,
    reconstruction: Reconstruction,
    objects: str | None = None,
) -> Measures | None:
    """The mean squared error of dropped patches, over that of the mean image; None without any such patch.

    Batches hold whole images and the patches that each keeps, under `name`. Both errors are of the targets that the recipe
    has, normalised or not, over the same patches. The mean image is that of all images of `batches`, place by place: no
    answer that is the same for all of them has a smaller error, so that it is the `chance` of 1. Where batches hold the
    object of each pixel beside the image `objects`, `unseen` is the share of the error that is in objects of which no pixel
    is visible, and its chance their share of the dropped pixels. The model is left in the mode it was in.
    """
    moments, error = None, torch.zeros((), dtype=torch.float64)
    images, unseen = 0, _Unseen()
    with evaluation_mode(model):
        for decoded, target, dropped, batch in _decoded(model, batches, name, reconstruction):
            images += len(target)
            errors = (decoded - target).square()
            error += errors.mean(dim=-1)[dropped].sum()
            if objects is not None:
                unseen.add(errors, dropped, batch.values[port(objects, "segments")])
            own = torch.stack([part.sum(dim=0) for part in _moments(target, dropped)])
            moments = own if moments is None else moments + own
    if moments is None:
        return None
    total, of_dropped, squares, counts = moments
    mean = total / images
    spread = (squares - 2 * mean * of_dropped + counts * mean.square()).mean(dim=-1).sum()
    if not spread > 0:
        return None
    share, chance = unseen.measured()
    return Measures({"error": float(error / spread), **share}, {"error": 1.0, **chance}, {"images": images})


@dataclass
class _Unseen:
    """How much of the error is in objects without a visible pixel, and how many of the dropped pixels are."""

    error: float = 0.0
    of_all: float = 0.0
    pixels: int = 0
    dropped: int = 0

    def add(self, errors: Tensor, dropped: Tensor, segments: Value) -> None:
        """The squared errors `[b, P, C]` of images, and the object of each of their pixels."""
        assert isinstance(segments, PatchSegments)
        side = math.isqrt(segments.numbers.shape[1])
        patch = math.isqrt(errors.shape[2] // 3)
        numbers = (
            segments.numbers.view(-1, side // patch, patch, side // patch, patch).transpose(2, 3).flatten(3).flatten(1, 2)
        )
        of_pixels = errors.unflatten(2, (patch**2, 3)).mean(dim=3)
        for own, objects, hidden in zip(of_pixels, numbers, dropped, strict=True):
            lost = (objects > 0) & ~torch.isin(objects, objects[~hidden].unique()) & hidden[:, None]
            self.error += float(own[lost].sum())
            self.of_all += float(own[hidden].sum())
            self.pixels += int(lost.sum())
            self.dropped += int(hidden.sum()) * patch**2

    def measured(self) -> tuple[dict[str, float], dict[str, float]]:
        """The share, and by chance; nothing where nothing was added."""
        if not self.dropped or not self.of_all > 0:
            return {}, {}
        return {"unseen": self.error / self.of_all}, {"unseen": self.pixels / self.dropped}


def _moments(target: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per image, what sums to the mean image and to its squared error over the dropped patches, [b, P, C] each."""
    at = dropped[:, :, None].expand_as(target)
    return target, torch.where(at, target, 0.0), torch.where(at, target.square(), 0.0), at.to(target.dtype)


def _decoded(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, reconstruction: Reconstruction
) -> Iterator[tuple[Tensor, Tensor, Tensor, Batch]]:
    """Of each batch the decoded patches and their targets, `float64 [b, P, C]`, and which were dropped, `[b, P]`."""
    tower, decoder = model.encoders[reconstruction.tower], model.part(Use(reconstruction.decoder))
    device = next(model.encoders.parameters()).device
    for batch in batches:
        value, keep = to(batch.values[name], device), to(batch.values[port(name, "keep")], device)
        assert isinstance(value, ImageBatch)
        assert isinstance(keep, KeptPatches)
        states = TowerInput(value, {"keep": keep}).call(tower).states
        decoded = decoder(states, keep.places)
        target = ops.pixels(value.pixels, ops.patch_side(decoded), normalised=reconstruction.normalised)
        yield decoded.cpu().double(), target.cpu().double(), keep.dropped(target.shape[1]).cpu(), batch
