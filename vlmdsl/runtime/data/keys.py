"""Keys of samples without a Python object for each: made when they are asked for, or kept in compressed blocks."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from vlmdsl.runtime.values.scalar import key_number

__all__ = ["Keys", "PackedNames", "Repetitions", "number_repetitions", "smallest_unsigned"]

_BLOCK = 256
"""Names that are compressed together: more take less memory, and longer to read one of them."""


class Keys(Sequence[str]):
    """`count` keys, of which `key(index)` makes each when it is asked for, and `in_order()` all of them, if that is faster.
    Equal to any sequence of the same keys."""

    def __init__(self, count: int, key: Callable[[int], str], in_order: Callable[[], Iterable[str]] | None = None) -> None:
        self._count, self._key, self._in_order = count, key, in_order

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._key(position) for position in range(self._count)[index]]
        return self._key(range(self._count)[index])

    def __iter__(self) -> Iterator[str]:
        return map(self._key, range(self._count)) if self._in_order is None else iter(self._in_order())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._count:,} keys>"


class PackedNames:
    """Texts in their order, compressed in blocks: numbered names take two or three bytes each.

    >>> names = PackedNames()
    >>> for number in range(1000):
    ...     names.append(f"{number:09d}")
    >>> len(names), names[321]
    (1000, '000000321')
    """

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._last: list[str] = []
        self._open: tuple[int, list[str]] = (-1, [])
        """The block that was read last, so that names in a row are unpacked once."""

    def append(self, name: str) -> None:
        """One more name."""
        self._last.append(name)
        if len(self._last) == _BLOCK:
            # JSON: a name may hold any character, so that none is left to stand between them.
            self._blocks.append(zlib.compress(json.dumps(self._last).encode(), level=6))
            self._last = []

    def __len__(self) -> int:
        return len(self._blocks) * _BLOCK + len(self._last)

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks:
            yield from json.loads(zlib.decompress(block))
        yield from self._last

    def __getitem__(self, index: int) -> str:
        block, within = divmod(index, _BLOCK)
        if block == len(self._blocks):
            return self._last[within]
        number, names = self._open
        if number != block:
            names = json.loads(zlib.decompress(self._blocks[block]))
            self._open = (block, names)
        return names[within]


class Repetitions:
    """The numbers that keys get which came before, kept for those alone: samples are told apart by their keys."""

    def __init__(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        nothing = np.empty(0, dtype=np.uint32)
        self.indices = nothing if indices is None else indices
        self._numbers = nothing if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.indices)

    def unique(self, index: int, key: str) -> str:
        """The key of sample `index`, with its number behind it if it has one."""
        if not len(self.indices):
            return key
        # In the type of the array: it is copied for a number of another type.
        place = int(np.searchsorted(self.indices, self.indices.dtype.type(index)))
        if place == len(self.indices) or self.indices[place] != index:
            return key
        return f"{key}#{self._numbers[place]}"

    def unique_in_order(self, keys: Iterable[str]) -> Iterable[str]:
        """All keys in their order, each with its number behind it if it has one."""
        if not len(self.indices):
            return keys
        return self._numbered(keys)

    def _numbered(self, keys: Iterable[str]) -> Iterator[str]:
        repeated = zip(map(int, self.indices), self._numbers, strict=True)
        place, number = next(repeated)
        for index, key in enumerate(keys):
            if index == place:
                yield f"{key}#{number}"
                place, number = next(repeated, (-1, 0))
            else:
                yield key


def number_repetitions(keys: Sequence[str]) -> Repetitions:
    """Numbers for the keys that came before, from 2 on, so that no two samples have the same one.

    Keys are compared by 63 bits (`key_number`): two that differ count as equal with a chance of 2**-63.

    >>> keys = ["a/1", "a/2", "a/1", "a/1#2"]
    >>> repeated = number_repetitions(keys)
    >>> [repeated.unique(index, key) for index, key in enumerate(keys)]
    ['a/1', 'a/2', 'a/1#3', 'a/1#2']
    """
    digests = _digests(keys, len(keys))
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    again = np.sort(order[1:][ordered[1:] == ordered[:-1]])
    del order, digests
    numbers = np.empty(len(again), dtype=np.uint32)
    next_number: dict[int, int] = {}
    new = set[int]()
    for place, index in enumerate(again.tolist()):
        key = keys[index]
        own = key_number(key)
        number = next_number.get(own, 2)
        while (digest := key_number(f"{key}#{number}")) in new or _is_in(digest, ordered):
            number += 1
        numbers[place] = number
        next_number[own] = number + 1
        new.add(digest)
    return Repetitions(again.astype(smallest_unsigned(len(keys))), numbers)


def _digests(keys: Iterable[str], count: int) -> np.ndarray:
    return np.fromiter(map(key_number, keys), dtype=np.int64, count=count)


def _is_in(number: int, ordered: np.ndarray) -> bool:
    place = int(np.searchsorted(ordered, number))
    return place < len(ordered) and int(ordered[place]) == number


def smallest_unsigned(most: int) -> type[np.uint32] | type[np.uint64]:
    """The type of arrays that hold numbers up to `most`: four bytes each if that is enough."""
    return np.uint32 if most < 2**32 else np.uint64
