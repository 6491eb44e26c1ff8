"""The run-time behaviour of fields of one kind.

To add a kind of field, write a module with its named tuple and its `Family`, and say where it is in the kind's description
(`vlmdsl.types.register_field_kind`), from which it is imported when data is read. A plug-in does the same.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.tuples import Value
from vlmdsl.types import FIELD_KINDS

__all__ = ["Family", "FieldColumns", "SampleColumns", "family_of", "first_value"]

S = TypeVar("S")
V_co = TypeVar("V_co", bound=Value, covariant=True)


@dataclass(frozen=True, slots=True)
class FieldColumns:
    """The columns of the data that feed a field, and the facts that reading needs.

    `alternatives` are the columns that list other phrasings of a text, `classes` the numbers of class names,
    `text_characters` where texts are cut, `facts` what the family's `probe` said of the data.
    """

    name: str
    columns: tuple[str, ...]
    alternatives: tuple[str, ...] = ()
    classes: Mapping[str, int] | None = None
    text_characters: int | None = None
    facts: Any = None


def _no_image(field: FieldColumns) -> np.ndarray:
    raise RuntimeError(f"{field.name} is read where no image can be decoded")


def _first(field: FieldColumns, count: int) -> int:
    return 0


def _no_extent(boxes: str = "") -> tuple[int, int]:
    raise BadSample("boxes without an image that they are in")


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """One sample of a source, as a family reads it.

    `columns` are read on access. `image` decodes the image of a field, `uint8 [H, W, 3]`, within the limits of
    the run: a family opens no file that data names. `choice` selects one of several texts of a field. `extent` is the
    width and height of the sample's image as it is stored, in pixels, of that which the field of this name is about, if it
    is one of boxes; BadSample where it has none.
    """

    columns: Mapping[str, object]
    key: str = ""
    image: Callable[[FieldColumns], np.ndarray] = _no_image
    choice: Callable[[FieldColumns, int], int] = _first
    extent: Callable[..., tuple[int, int]] = _no_extent


class Family(Protocol[S, V_co]):
    """The values of one kind of field: S of a sample, V of a batch."""

    @property
    def kind(self) -> str:
        """The kind's name in the language: a key of `vlmdsl.types.FIELD_KINDS`."""
        ...

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> Any:
        """What reading needs to know of the data before the first sample: the `facts` of the field; None: nothing.

        `samples` are the columns of up to 64 samples, spread over the data, read on access.
        """
        ...

    def read(self, sample: SampleColumns, field: FieldColumns) -> S:
        """One sample's value. Raises `BadSample` for whatever a column may hold that is not one."""
        ...

    def collate(self, samples: Sequence[S], form: Any) -> V_co:
        """One batch of samples in the form of the module that takes them, which states it as `KIND_format`; None where no
        module does."""
        ...


def family_of(kind: str) -> Family[Any, Value]:
    """The family of this kind; data cannot hold fields of a kind without one."""
    path = FIELD_KINDS[kind].family
    assert path is not None, f"a {kind} is not read from data"
    return _family(path)


@lru_cache
def _family(path: str) -> Family[Any, Value]:
    family: Family[Any, Value] = pkgutil.resolve_name(path)()
    return family


def first_value(columns: Mapping[str, object], names: Iterable[str]) -> object:
    """The value of the first of these columns that has one; None if none has."""
    for name in names:
        value = columns.get(name)
        if value is not None and not (isinstance(value, str | list | tuple) and not value):
            return value
    return None
