"""A faiss index of a column of the reference set, and its handle in compiled graphs."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.source import Span

__all__ = ["FaissIndex", "index_of", "load_faiss"]

_ROWS = 65_536
"""How many entries are added to the index at once, so that a large table is not copied a third time."""

_numbers = itertools.count()
_indexes: WeakValueDictionary[int, FaissIndex] = WeakValueDictionary()


def load_faiss(
    needed_for: str = "`data.reference_search=faiss`",
    otherwise: str = "leave the setting out: `exact` finds the same samples",
) -> ModuleType:
    """The module `faiss`; `DiagnosticError` (V0901) if it is not installed, which suggests what to do `otherwise`."""
    try:
        import faiss
    except ImportError as fault:
        missing = PackageMissing.at(
            Span("<command line>", 0, 0),
            what=needed_for,
            package="faiss-cpu",
            help=("run `pip install 'vlmdsl[ann]'`", f"or {otherwise}"),
        )
        raise DiagnosticError((missing,)) from fault
    module: ModuleType = faiss
    return module


class FaissIndex:
    """An index of the normalised `entries` [R, D] in CPU memory, in float32; flat, so each search compares with all of them.

    `handle` (0-d, int64, on the CPU) stands for the index in a compiled graph, which passes on tensors only: another index
    in its place does not cause a recompilation. It is good for as long as the index lives.
    """

    def __init__(self, entries: Tensor) -> None:
        self._index: Any = load_faiss().IndexFlatIP(entries.shape[1])
        for start in range(0, entries.shape[0], _ROWS):
            part = entries.detach()[start : start + _ROWS]
            self._index.add(F.normalize(part.float(), dim=-1).cpu().numpy())
        number = next(_numbers)
        _indexes[number] = self
        self.handle = torch.tensor(number)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __deepcopy__(self, memo: object) -> FaissIndex:
        """Itself: it is immutable, and the handle of the copy must find it."""
        return self

    def search(self, unit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The cosines [b, count] of the nearest entries to each of `unit` [b, D], largest first, and their indices.

        Cosines are rounded to float32, and of equals any may come first. `count` is at most the number of entries.
        """
        scores, indices = self._index.search(unit.float().cpu().numpy(), count)
        return torch.from_numpy(scores).to(unit.device), torch.from_numpy(indices).to(unit.device)


def index_of(handle: Tensor) -> FaissIndex:
    """The index of a handle; RuntimeError if it no longer exists."""
    index = _indexes.get(int(handle))
    if index is None:
        raise RuntimeError("the index of this reference set is gone: fill the set again")
    return index
