"""The codebooks of a run: their towers, and their entries, which come from a file or from the training data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import EncoderDoesNotFit
from vlmdsl.ir.modules import CodebookSettings
from vlmdsl.runtime.data import EvaluationLoader, Loaded, some_samples, view_of
from vlmdsl.runtime.data.loading import workers_for
from vlmdsl.runtime.modules.towers import CodebookTower, Encoder
from vlmdsl.runtime.training.stage_sizes import OF_RUN, StageSizes
from vlmdsl.runtime.values import ImageBatch
from vlmdsl.schema import ModelConfig, RunConfig
from vlmdsl.source import Span

if TYPE_CHECKING:
    from vlmdsl.runtime.model import VisionLanguageModel
    from vlmdsl.runtime.training.assembly import Data

__all__ = ["USUAL_SIDE", "codebook_tower", "fill_codebooks"]

USUAL_SIDE = 32
"""The side of images for towers that state none, in pixels."""
_PATCHES_PER_ENTRY = 64


def codebook_tower(
    name: str,
    settings: CodebookSettings,
    model: ModelConfig,
    encoders: Iterable[Encoder],
    sizes: StageSizes = OF_RUN,
) -> CodebookTower:
    """The tower of a codebook, without entries; `encoders` are the other towers, whose patches it goes by. `sizes` are
    those of its stage, where they are not those of the run.

    `DiagnosticError` (V0831) where images of its side do not divide into its patches.
    """
    forms = [form for encoder in encoders if (form := encoder.image_format) is not None]
    whole = sizes.image_size or model.image_size or next((form.size for form in forms), USUAL_SIDE)
    side = round(settings.side * whole)
    grid = next((form.size // form.patch for form in forms if form.patch is not None), side)
    patch = settings.patch or side // grid
    if not patch or side % patch or (not settings.patch and side != patch * grid):
        problem = f"cuts images of {side} pixels into patches, which {patch or grid} does not divide evenly"
        help = f"set `patch` and `side` of `codebook`, or another `{sizes.setting('image_size')}`"
        raise _unfit(name, problem, help)
    return CodebookTower(replace(settings, patch=patch), side)


@torch.no_grad()
def fill_codebooks(model: VisionLanguageModel, data: Data, config: RunConfig) -> None:
    """Give each codebook without entries those of its file, or fit them to training images, without augmentations.

    Of several processes the first one does it and sends the entries to the others. `DiagnosticError`: V0831 for a file that
    is not a codebook of this size, or too few patches; V0901 without faiss.
    """
    for name, tower in model.encoders.items():
        if isinstance(tower, CodebookTower) and not tower.codebook.ready:
            fault: DiagnosticError | None = None
            if not dist.is_initialized() or dist.get_rank() == 0:
                try:
                    _fill(name, tower, model, data, config)
                except DiagnosticError as error:
                    fault = error
            _send(tower)
            if fault is not None:
                raise fault
            if not tower.codebook.ready:
                raise _unfit(name, "was not filled by the first process", "see what that process reports")


def _fill(name: str, tower: CodebookTower, model: VisionLanguageModel, data: Data, config: RunConfig) -> None:
    settings = tower.codebook.settings
    try:
        if settings.file:
            tower.codebook.load(Path(settings.file))
        else:
            images = _images(name, tower, model, data, config)
            tower.codebook.fit(images, seed=config.train.seed, patches_per_centre=_PATCHES_PER_ENTRY)
    except ValueError as fault:
        help = "use more data, or a smaller `size`"
        if settings.file:
            help = (
                "give it a safetensors `file` of its entries, or leave `file` out: they are then fitted to training images"
            )
        raise _unfit(name, f"has no entries: {fault}", help) from None


def _images(name: str, tower: CodebookTower, model: VisionLanguageModel, data: Data, config: RunConfig) -> Iterator[Tensor]:
    """Training images in the form of a codebook, as many as it is fitted to."""
    form = tower.image_format
    assert form is not None
    stream = next(stream for stream in model.streams if stream.encoder.tower == name)
    images = math.ceil(tower.codebook.settings.size * _PATCHES_PER_ENTRY / form.patches(1.0))
    loader = EvaluationLoader(
        some_samples(data.train, images),
        data.mapping,
        {"image": Loaded(view_of(stream.source).without_draws(), form)},
        batch=config.evaluation.batch,
        workers=workers_for(config.data.workers, images // config.evaluation.batch),
    )
    device = tower.codebook.centres.device
    for batch in loader:
        value = batch.values["image"]
        assert isinstance(value, ImageBatch)
        yield value.pixels.to(device)


def _send(tower: CodebookTower) -> None:
    """The entries of the first process on all of them."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        codebook = tower.codebook
        ready = codebook.ready.to(torch.uint8)
        dist.broadcast(codebook.centres, 0)
        dist.broadcast(ready, 0)
        codebook.ready.copy_(ready.bool())


def _unfit(name: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((EncoderDoesNotFit.at(Span("encoders", 0, 0), name=name, problem=problem, help=help_texts),))
