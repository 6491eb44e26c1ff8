"""Keys of samples without a Python object each: created on access, or stored in compressed blocks."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from vlmdsl.runtime.values.scalar import key_number

__all__ = ["Fingerprint", "Keys", "PackedNames", "Repetitions", "number_repetitions", "smallest_unsigned"]

_BLOCK = 256
"""Names that are compressed together: more take less memory, and longer to read one of them."""


class Keys(Sequence[str]):
    """`count` keys; `key(index)` creates one on access, and `in_order()` all of them, if that is faster.
    Equal to any sequence of the same keys. `fingerprint` is their fingerprint, if already known."""

    def __init__(
        self,
        count: int,
        key: Callable[[int], str],
        in_order: Callable[[], Iterable[str]] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self._count, self._key, self._in_order = count, key, in_order
        self.fingerprint = fingerprint

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
    """Names in their order, compressed in blocks; none ends in a NUL.

    A block is compressed letter by letter: what all of its names have in common takes next to nothing, a hexadecimal digit
    half a byte. Numbered names take under a byte each, 32 random hexadecimal digits 16.

    >>> names = PackedNames(f"{number:09d}" for number in range(1000))
    >>> len(names), names[321], names.nbytes < 1000
    (1000, '000000321', True)
    """

    def __init__(self, names: Iterable[str]) -> None:
        remaining = iter(names)
        self._count = 0
        # One piece of memory: small objects that stay keep all the memory around them, which held the unpacked names.
        packed, ends = bytearray(), array("Q", [0])
        while block := list(itertools.islice(remaining, _BLOCK)):
            packed += _packed(block)
            ends.append(len(packed))
            self._count += len(block)
        self._packed = bytes(packed)
        self._ends = np.asarray(ends, dtype=smallest_unsigned(len(packed)))
        """Where the blocks end, from the 0 before the first on."""
        self._unpacked: tuple[int, np.ndarray] = (-1, np.empty((0, 0), dtype=np.uint8))
        """The block that was read last, by its number, so that names in a row are unpacked once."""

    @property
    def nbytes(self) -> int:
        """The bytes that they take, compressed."""
        return len(self._packed) + self._ends.nbytes

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self._ends) - 1):
            letters = self._letters(number).T.copy()
            yield from map(_text, letters.view(f"S{letters.shape[1]}")[:, 0].tolist())

    def __getitem__(self, index: int) -> str:
        block, within = divmod(index, _BLOCK)
        number, letters = self._unpacked
        if number != block:
            letters = self._letters(block)
            self._unpacked = (block, letters)
        return _text(letters[:, within].tobytes().rstrip(b"\0"))

    def _letters(self, block: int) -> np.ndarray:
        """The bytes of the names of a block [longest, names], NULs behind the shorter ones."""
        start, end = self._ends[block : block + 2].tolist()
        letters = np.frombuffer(zlib.decompress(self._packed[start:end], -zlib.MAX_WBITS), dtype=np.uint8)
        return letters.reshape(-1, min(_BLOCK, self._count - block * _BLOCK))


def _packed(names: Sequence[str]) -> bytes:
    letters = np.array([name.encode("utf-8", "surrogatepass") for name in names])
    columns = letters.view(np.uint8).reshape(len(names), -1).T.tobytes()
    # `Z_FILTERED`: repetitions of a few random letters are more expensive to point to than to repeat.
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_FILTERED)
    return packer.compress(columns) + packer.flush()


def _text(letters: bytes) -> str:
    return letters.decode("utf-8", "surrogatepass")


class Fingerprint:
    """SHA-256 of keys, added in order, which identifies a data set.

    >>> fingerprint = Fingerprint()
    >>> fingerprint.add("a/1")
    >>> fingerprint.hexdigest()[:8]
    '834e58ea'
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, key: str) -> None:
        """One more key."""
        self._digest.update(key.encode("utf-8", "surrogatepass") + b"\0")

    def hexdigest(self) -> str:
        """The digest of those that were added."""
        return self._digest.hexdigest()


class Repetitions:
    """The numbers of repeated keys, so that every sample has a unique key."""

    def __init__(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        nothing = np.empty(0, dtype=np.uint32)
        self.indices = nothing if indices is None else indices
        self._numbers = nothing if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.indices)

    def unique(self, index: int, key: str) -> str:
        """The key of sample `index`, with its number appended if it has one."""
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
    """Number repeated keys from 2 on, so that all samples have different ones.

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
    """The smallest array type for numbers up to `most`: four bytes each if that is enough."""
    return np.uint32 if most < 2**32 else np.uint64
