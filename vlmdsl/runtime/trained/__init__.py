"""Trained models: encode, compare, classify, search."""

from vlmdsl.runtime.tracking.grid import draw_grid
from vlmdsl.runtime.trained.collections import EncodedData
from vlmdsl.runtime.trained.embeddings import write_embeddings
from vlmdsl.runtime.trained.exports import Exported, without_folder, write_export
from vlmdsl.runtime.trained.model import TrainedModel

__all__ = [
    "EncodedData", "Exported", "TrainedModel", "draw_grid", "write_embeddings", "without_folder", "write_export",
]  # fmt: skip
