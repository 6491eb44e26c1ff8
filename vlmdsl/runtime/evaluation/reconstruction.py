"""The error of reconstructed patches, beside that of the mean image."""

from __future__ import annotations

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
from vlmdsl.runtime.values import Batch, ImageBatch, KeptPatches, TowerInput, port, to

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
            decoded, target, _ = node.inputs
            encode = target.inputs[0]
            return Reconstruction(
                encode.inputs[0], encoder_of(encode).tower, use_of(decoded).module, target.string("normalised")
            )
    return None


def masked_error(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, reconstruction: Reconstruction
) -> Measures | None:
    """The mean squared error of dropped patches, over that of the mean image; None without any such patch.

    Batches hold whole images and the patches that each keeps, under `name`. Both errors are of the targets that the recipe
    has, normalised or not, over the same patches. The mean image is that of all images of `batches`, place by place: no
    answer that is the same for all of them has a smaller error, so that it is the `chance` of 1. The model is left in the
    mode it was in.
    """
    moments, error = None, torch.zeros((), dtype=torch.float64)
    images = 0
    with evaluation_mode(model):
        for decoded, target, dropped in _decoded(model, batches, name, reconstruction):
            images += len(target)
            error += (decoded - target).square().mean(dim=-1)[dropped].sum()
            own = torch.stack([part.sum(dim=0) for part in _moments(target, dropped)])
            moments = own if moments is None else moments + own
    if moments is None:
        return None
    total, of_dropped, squares, counts = moments
    mean = total / images
    spread = (squares - 2 * mean * of_dropped + counts * mean.square()).mean(dim=-1).sum()
    if not spread > 0:
        return None
    return Measures({"error": float(error / spread)}, {"error": 1.0}, {"images": images})


def _moments(target: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per image, what sums to the mean image and to its squared error over the dropped patches, [b, P, C] each."""
    at = dropped[:, :, None].expand_as(target)
    return target, torch.where(at, target, 0.0), torch.where(at, target.square(), 0.0), at.to(target.dtype)


def _decoded(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, reconstruction: Reconstruction
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
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
        yield decoded.cpu().double(), target.cpu().double(), keep.dropped(target.shape[1]).cpu()
