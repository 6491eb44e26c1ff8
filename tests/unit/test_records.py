"""`record` behaves as `dataclass(frozen=True, slots=True)` does, but for setting an attribute (mypy refuses that)."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field, replace

import pytest

from vlmdsl._records import record


@record
class Point:
    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    payload: object = field(default=None, hash=False)


@record
class Other:
    x: int
    y: int = 0


@record
class Empty:
    """No fields."""


@record
class Named(Other):
    def __repr__(self) -> str:
        return "mine"


@dataclass(frozen=True, slots=True)
class Reference:
    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    payload: object = field(default=None, hash=False)


def test_records_compare_hash_and_print_as_data_classes_do() -> None:
    assert Point(1) == Point(1, 0, note="seen")
    assert Point(1) != Point(2)
    assert Point(1, payload=[1]) != Point(1, payload=[2])
    assert Other(1) != Named(1)
    assert Point(1) != Reference(1)
    assert hash(Point(1, payload=[1])) == hash(Point(1)) == hash(Reference(1))
    assert repr(Point(1)) == repr(Reference(1)).replace("Reference", "Point")
    assert repr(Named(1)) == "mine"
    assert Empty() == Empty()
    assert {Empty(): 1}[Empty()] == 1


def test_records_can_be_matched_replaced_copied_and_pickled() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
    assert replace(Other(1), y=5) == Other(1, 5)
    for again in (copy.copy(Other(1)), copy.deepcopy(Other(1)), pickle.loads(pickle.dumps(Other(1)))):
        assert again == Other(1)
    with pytest.raises(AttributeError):
        Other(1).z = 3  # type: ignore[attr-defined]
