"""Operations on values of any kind: named tuples of tensors whose first axis is the samples.

A member may be None where its class says so. Members that `padded` names have a second axis of one length L, which may be
padded: with zeros, which is false in the mask that is among them. A class whose members do not have an entry for each sample
says itself what some of its samples are (`Packed`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Packed", "Value", "cat", "count", "length", "map_tensors", "pad", "shorten", "split", "take", "to"]

Value: TypeAlias = tuple[Tensor | None, ...]
V = TypeVar("V", bound=Value)


@runtime_checkable
class Packed(Protocol):
    """A value with a member whose rows hold what belongs to other samples, which indices of samples do not select."""

    def of_samples(self, indices: slice | Tensor) -> Self:
        """The samples at these indices."""
        ...

    def followed_by(self, others: Sequence[Self]) -> Self:
        """These samples, then those of `others`."""
        ...


def map_tensors(function: Callable[[Tensor], Tensor], value: V) -> V:
    """The value with the function applied to each of its tensors."""
    return _like(value, [None if tensor is None else function(tensor) for tensor in value])


def to(value: V, device: torch.device | str, non_blocking: bool = False) -> V:
    """The value on `device`."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking), value)


def count(value: Value) -> int:
    """How many samples the value has."""
    return len(next(tensor for tensor in value if tensor is not None))


def length(value: Value) -> int | None:
    """L of a value that can be padded; None of any other, and of one whose mask is None: it has no padding."""
    mask: Tensor | None = getattr(value, "mask", None)
    return None if mask is None else mask.shape[1]


def take(value: V, indices: slice | Tensor) -> V:
    """The samples at these indices."""
    if isinstance(value, Packed):
        return value.of_samples(indices)
    return map_tensors(lambda tensor: tensor[indices], value)


def split(value: V, sizes: Sequence[int]) -> list[V]:
    """The value in parts of these sizes."""
    if isinstance(value, Packed):
        ends = list(itertools.accumulate(sizes))
        return [value.of_samples(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    members = [(None,) * len(sizes) if tensor is None else tensor.split(list(sizes)) for tensor in value]
    return [_like(value, list(part)) for part in zip(*members, strict=True)]


def pad(value: V, longest: int) -> V:
    """The value with its second axis padded to `longest`."""

    def padded(tensor: Tensor) -> Tensor:
        return functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, longest - tensor.shape[1]))

    return value if length(value) in (None, longest) else _along_second_axis(padded, value)


def shorten(value: V, longest: int) -> V:
    """The value with its second axis cut at `longest`, which must hold only padding from there on."""
    return value if length(value) in (None, longest) else _along_second_axis(lambda tensor: tensor[:, :longest], value)


def cat(values: Sequence[V]) -> V:
    """The samples of several values of one class, one after the other, padded to the longest of them.

    >>> from vlmdsl.runtime.values import TextBatch
    >>> short = TextBatch(torch.tensor([[5]]), torch.tensor([[True]]))
    >>> long = TextBatch(torch.tensor([[7, 8]]), torch.tensor([[True, True]]))
    >>> cat([short, long]).mask.tolist()
    [[True, False], [True, True]]
    """
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], Packed):
        return values[0].followed_by(values[1:])
    longest = max((own for value in values if (own := length(value)) is not None), default=0)
    members = zip(*(pad(value, longest) for value in values), strict=True)
    return _like(values[0], [None if member[0] is None else torch.cat(member) for member in members])


def _along_second_axis(function: Callable[[Tensor], Tensor], value: V) -> V:
    names: tuple[str, ...] = value.padded  # type: ignore[attr-defined]  # whoever has a mask has it
    fields: tuple[str, ...] = value._fields  # type: ignore[attr-defined]  # of a named tuple
    return _like(
        value,
        [
            function(tensor) if tensor is not None and name in names else tensor
            for name, tensor in zip(fields, value, strict=True)
        ],
    )


def _like(value: V, members: Sequence[Tensor | None]) -> V:
    return type(value)(*members)  # type: ignore[arg-type]  # a named tuple takes its members one by one
