"""The reference set of an objective: features of samples that are set aside, by frozen encoders; the same on every
process."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.numbers import lasting
from vlmdsl.backends.torch.search import FaissIndex
from vlmdsl.backends.torch.values import Table
from vlmdsl.ir import Column, Program, column_of, columns
from vlmdsl.ir.operations.reference import RETRIEVE

__all__ = ["References"]

_SEARCHES = ("exact", "faiss")


class References(nn.Module):
    """One buffer [R, D] per column, and the keys [R] of the samples, int64.

    Not in the state dict: it can be filled again, and may be larger than the model. Empty until `fill`.
    """

    keys: Tensor

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.columns: list[Column] = columns(program)
        """The columns of the table: an encoder and a field each."""
        if self.columns:
            self.register_buffer("keys", torch.zeros(0, dtype=torch.int64), persistent=False)
        for column in self.columns:
            self.register_buffer(_buffer(column.name), torch.zeros(0, 0), persistent=False)
        self._searched = {column_of(node.inputs[1]).name for node in program.nodes() if node.operation is RETRIEVE}
        self._indexes: dict[str, FaissIndex] = {}

    def fill(self, values: Mapping[str, Tensor], keys: Tensor, *, search: str = "exact") -> None:
        """Set the whole table: `values` [R, D] by the name of the column, and the `keys` [R] that identify its samples.

        `search` is `exact`, which compares in torch and chunk by chunk, where the table is, or `faiss`, which finds the same
        entries on the CPU and holds what is searched there a second time. ValueError names a column that is missing,
        unknown, or of another length than the keys; `DiagnosticError` (V0901) without faiss where that is to search.
        """
        if search not in _SEARCHES:
            raise ValueError(f"a reference set is searched by one of {', '.join(_SEARCHES)}, not {search!r}")
        names = [column.name for column in self.columns]
        if not names:
            raise ValueError("this objective retrieves nothing: it has no reference set to fill")
        if set(values) != set(names):
            raise ValueError(f"the reference set has the columns {', '.join(names)}, not {', '.join(values)}")
        for name, value in values.items():
            if value.dim() != 2 or value.shape[0] != len(keys):
                raise ValueError(f"the column {name} must be [{len(keys)}, D], got {list(value.shape)}")
            old = self.get_buffer(_buffer(name))
            setattr(self, _buffer(name), lasting(value.detach().to(old)))
        self.keys = lasting(keys.to(self.keys))
        searched = self._searched if search == "faiss" else ()
        self._indexes = {name: FaissIndex(self.get_buffer(_buffer(name))) for name in searched}

    def read(self) -> dict[str, Table]:
        """Every column by its name."""
        return {column.name: self._table(column.name) for column in self.columns}

    def _table(self, name: str) -> Table:
        index = self._indexes.get(name)
        return Table(self.get_buffer(_buffer(name)), self.keys, None if index is None else index.handle)


def _buffer(column: str) -> str:
    return f"column_{column.replace('.', '_')}"
