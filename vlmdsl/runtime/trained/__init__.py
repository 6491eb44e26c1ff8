"""Trained models: encode, compare, classify, search."""

from vlmdsl.runtime.tracking.grid import draw_grid
from vlmdsl.runtime.trained.collections import EncodedData
from vlmdsl.runtime.trained.embeddings import write_embeddings
from vlmdsl.runtime.trained.export import Exported, export_programs, export_weights
from vlmdsl.runtime.trained.model import TrainedModel

__all__ = [
    "EncodedData", "Exported", "TrainedModel", "draw_grid", "export_programs", "export_weights", "write_embeddings",
]  # fmt: skip
