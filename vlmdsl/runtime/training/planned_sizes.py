"""The sizes that a plan of a run is for: those of its towers and its data."""

from __future__ import annotations

import torch

from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.training.assembly import Data

__all__ = ["planned_sizes"]


def planned_sizes(model: VisionLanguageModel, data: Data) -> dict[str, int]:
    """The sizes of a flow by the names that `vlmdsl.plan` has for them, without those that its towers do not have.

    A plan has one size of each kind: that of the first tower of the recipe which takes images, or texts.
    """
    towers = [model.encoders.encoder(stream.encoder.tower) for stream in model.streams if stream.encoder.codebook is None]
    pictures = [tower for tower in towers if tower.image_format is not None]
    forms = [tower.text_format for tower in towers if tower.text_format is not None]
    sizes = {"samples": len(data.train)}
    if data.reference is not None:
        sizes["references"] = len(data.reference)
    if towers:
        sizes["dim"] = towers[0].dimension
    for tower in pictures[:1]:
        sizes |= _of_images(tower)
    for form in forms[:1]:
        sizes |= {"text_tokens": form.length, "vocabulary": form.tokenizer.vocabulary_size}
    return sizes


def _of_images(tower: Encoder) -> dict[str, int]:
    form = tower.image_format
    assert form is not None
    tokens = form.patches(1) or _tokens(tower, form.size)
    return {"image_size": form.size} | ({"image_tokens": tokens} if tokens else {})


@torch.no_grad()
def _tokens(tower: Encoder, side: int) -> int:
    """The tokens of an image, of a tower that does not say how large its patches are; 0 of one that yields none."""
    if "tokens" not in tower.yields:
        return 0
    weight = next(tower.parameters(), torch.zeros(()))
    image = torch.zeros(1, 3, side, side, dtype=weight.dtype, device=weight.device)
    training = tower.training
    tokens = tower.eval()(image).tokens
    tower.train(training)
    return 0 if tokens is None else int(tokens.shape[1])
