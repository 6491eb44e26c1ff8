"""The types of queues: what earlier steps have left, first in, first out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vlmdsl.types.types import Type

__all__ = ["InputsType", "LabelsType", "MemoryType", "QueueType"]


@dataclass(frozen=True, slots=True)
class MemoryType(Type):
    """A queue of unit vectors of earlier steps. Its axis holds its size."""

    rows: str
    features: str = "D"

    def __str__(self) -> str:
        return f"Memory[{self.rows}, {self.features}]"


@dataclass(frozen=True, slots=True)
class LabelsType(Type):
    """A queue of the labels of earlier steps."""

    rows: str

    def __str__(self) -> str:
        return f"Labels[{self.rows}]"


@dataclass(frozen=True, slots=True)
class InputsType(Type):
    """A queue of the images or texts of earlier steps, as towers take them."""

    kind: str
    rows: str

    def __str__(self) -> str:
        return f"{self.kind}s[{self.rows}]"


QueueType: TypeAlias = MemoryType | LabelsType | InputsType
"""What a queue may hold: unit vectors, labels, or the inputs of towers."""
