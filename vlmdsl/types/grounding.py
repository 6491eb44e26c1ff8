"""Types of regions of an image and the words that name them."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.types.types import Type

__all__ = ["AlignmentType", "BoxAssignmentType", "WordMapType"]


@dataclass(frozen=True, slots=True)
class AlignmentType(Type):
    """Logits of the regions of each sample against the words of its text, its concepts, or the entries of a table."""

    rows: str = "B"
    regions: str = "R"
    words: str = "L"

    def __str__(self) -> str:
        return f"Alignment[{self.rows}, {self.regions}, {self.words}]"


@dataclass(frozen=True, slots=True)
class WordMapType(Type):
    """Which words of its text, or which of its concepts, name each region of a sample: 0 or 1, many to many."""

    rows: str = "B"
    regions: str = "R"
    words: str = "L"

    def __str__(self) -> str:
        return f"WordMap[{self.rows}, {self.regions}, {self.words}]"


@dataclass(frozen=True, slots=True)
class BoxAssignmentType(Type):
    """Which box of its sample each point of a grid is for, if any."""

    rows: str = "B"
    points: str = "P"

    def __str__(self) -> str:
        return f"BoxAssignment[{self.rows}, {self.points}]"
