"""Trained models for others: what can be written, and by what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlmdsl.runtime.trained.exports.hugging_face import export_transformers
from vlmdsl.runtime.trained.exports.open_clip import export_open_clip
from vlmdsl.runtime.trained.exports.programs import export_onnx, export_programs
from vlmdsl.runtime.trained.exports.sides import Exported
from vlmdsl.runtime.trained.exports.weights import export_weights, without_folder
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.runtime.training.adaptation import merged
from vlmdsl.runtime.training.run_folder import RunFolder

__all__ = ["Exported", "without_folder", "write_export"]

_OF_MODEL: dict[str, Callable[[TrainedModel, Path], Exported]] = {
    "hf": export_transformers,
    "open_clip": export_open_clip,
    "onnx": export_onnx,
    "torch-export": export_programs,
}


def write_export(form: str, trained: TrainedModel, folder: RunFolder, out: Path) -> Exported:
    """Write a trained model, which is that of the run `folder`, to the folder `out`; `DiagnosticError` (V0865) for what the
    format cannot hold."""
    write = _OF_MODEL.get(form)
    if write is None:
        return export_weights(trained, folder, out)
    merged(trained.model.encoders)  # others have no adapters
    return write(trained, out)
