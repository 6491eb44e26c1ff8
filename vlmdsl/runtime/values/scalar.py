"""One number per sample: a class, a truth value, a number, or a key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.family import FieldColumns, SampleColumns, first_value
from vlmdsl.runtime.values.numeric import number_of

__all__ = [
    "MISSING_LABEL", "FlagFamily", "KeyFamily", "LabelFamily", "NumberFamily", "ScalarBatch", "key_number", "label_value",
    "word_of",
]  # fmt: skip

MISSING_LABEL = -1
"""The class of a sample without one; `same(label)` takes it as equal to nothing else."""

_LARGEST_CLASS = 2**53
"""Beyond it a float, which is what JSON numbers may be, does not hold every integer."""

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


class ScalarBatch(NamedTuple):
    """One number of each sample: `numbers [b]`, int64 of classes and keys, bool of flags, float32 of numbers."""

    numbers: Tensor


class _ScalarFamily:
    """The common part of the families of numbers: `dtype` in a batch, no form, nothing to be known of the data."""

    dtype: torch.dtype

    def probe(self, samples: object, field: FieldColumns) -> None:
        """Nothing."""

    def collate(self, samples: Sequence[float], form: object) -> ScalarBatch:
        """The numbers [b]."""
        return ScalarBatch(torch.tensor(samples, dtype=self.dtype))


class LabelFamily(_ScalarFamily):
    """Fields of kind Label: the number of a class.

    The names of classes do not come from its `probe` but from `classes_of`, since held-out data may take those of the
    training data.
    """

    kind, dtype = "Label", torch.int64

    def read(self, sample: SampleColumns, field: FieldColumns) -> int:
        """The number of the class, or that of its name; `MISSING_LABEL` without one. Raises `BadSample`."""
        return label_value(first_value(sample.columns, field.columns), field.classes or {})


class FlagFamily(_ScalarFamily):
    """Fields of kind Flag: yes or no."""

    kind, dtype = "Flag", torch.bool

    def read(self, sample: SampleColumns, field: FieldColumns) -> bool:
        """A truth value, 0 or 1, or a word for one; raises `BadSample`."""
        value = first_value(sample.columns, field.columns)
        word = "" if isinstance(value, list | tuple | dict) else str(value).strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise BadSample(f"missing {field.name}" if value is None else f"{field.name} is neither true nor false")


class NumberFamily(_ScalarFamily):
    """Fields of kind Number."""

    kind, dtype = "Number", torch.float32

    def read(self, sample: SampleColumns, field: FieldColumns) -> float:
        """A finite number; raises `BadSample`."""
        value = first_value(sample.columns, field.columns)
        number = number_of(value)
        if number is None:
            raise BadSample(f"missing {field.name}" if value is None else f"{field.name} is not a number")
        return number


class KeyFamily(_ScalarFamily):
    """Fields of kind Key, made of the sample's key, so that no column feeds them."""

    kind, dtype = "Key", torch.int64

    def read(self, sample: SampleColumns, field: FieldColumns) -> int:
        """The key as a number."""
        return key_number(sample.key)


def key_number(key: str) -> int:
    """The key of a sample as a number of 63 bits: equal for equal keys, and for others with a chance of 2**-63.

    >>> key_number("scene-1") == key_number("scene-1")
    True
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def label_value(value: object, classes: Mapping[str, int]) -> int:
    """The class as an integer; a name is looked up in `classes`; `MISSING_LABEL` without one, or for an unknown name."""
    if value is None:
        return MISSING_LABEL
    if isinstance(value, str):
        name = value.strip()
        if name in classes:
            return classes[name]
        return _class_number(name) if name.removeprefix("-").isdecimal() else MISSING_LABEL
    return _class_number(value)


def word_of(value: object) -> str:
    """A name as text: of a class, of a source. Raises `BadSample` for a list, an object, a truth value, or no number."""
    if not isinstance(value, str) and number_of(value) is None:
        raise BadSample("name is not a word")
    return str(value).encode("utf-8", "replace").decode("utf-8").strip()


def _class_number(value: object) -> int:
    number = number_of(value)
    if number is None or not number.is_integer() or abs(number) > _LARGEST_CLASS:
        raise BadSample("label is not a class")
    return int(number)
