"""`load`: a trained model, ready to use. Torch is imported when it is called."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import course, folder_and_checkpoint, load_settings, parts_of

if TYPE_CHECKING:
    from vlmdsl.runtime.trained import TrainedModel

__all__ = ["load"]


def load(run: str | Path, *, device: str | None = None, batch: int = 64) -> TrainedModel:
    """The model of a run's newest complete checkpoint, or of one of its checkpoints; the data that it was trained on need
    not be there.

    Only a model that retrieves from reference samples while it encodes (`ra_clip`) reads them again. Raises
    `DiagnosticError`: V0816 if the folder is not that of a run, or has no complete checkpoint, V0850 for a damaged file,
    V0910 if there is no such device.

    Args:
        run: the run folder, or that of a checkpoint in it (`runs/clip-1/checkpoints/step-00000400`).
        device: `cpu`, `cuda` or `auto`; that of the run's settings if left out.
        batch: how many images or texts are encoded at a time.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> model = vlmdsl.load(run.folder)
    >>> import numpy
    >>> picture = numpy.full([40, 40, 3], 255, dtype=numpy.uint8)
    >>> model.encode_image(picture).shape, model.encode_text(["a red circle", "a blue square"]).shape
    (torch.Size([1, 64]), torch.Size([2, 64]))
    >>> model.classify(picture, ["circle", "square"]).shape
    torch.Size([1, 2])
    """
    folder, checkpoint = folder_and_checkpoint(run)
    record = folder.read_facts().recipe
    built = build_flows(folder.recipe, knobs=record.given_knobs, kept=folder.kept_uses())
    settings = {} if device is None else {"train.device": device}
    config = load_settings(folder.config, (), settings, parts_of(built))
    measuring = import_module("vlmdsl.runtime.training.measuring")
    restored = measuring.restored_model(course(built, config, compiled=False), config, folder, checkpoint)
    trained: type[TrainedModel] = import_module("vlmdsl.runtime.trained").TrainedModel
    return trained(record.name, restored.checkpoint, restored.step, restored.measured, restored.materials, batch)
