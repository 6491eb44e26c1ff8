"""The interface of data sources: samples by position, with columns by name."""

from __future__ import annotations

import contextlib
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from vlmdsl.runtime.data.keys import Fingerprint, Keys, Repetitions, number_repetitions, smallest_unsigned
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values.bad_sample import BadSample

__all__ = [
    "BadSample", "JoinedSource", "KeysByPlace", "LazyColumns", "Samples", "SelectedSource", "Source", "fingerprint",
    "first_fault", "is_sound", "parts_of", "probed_columns", "probed_positions", "remarks_of", "some_samples",
    "source_facts", "split_samples",
]  # fmt: skip


_MOST_COLUMNS = 10_000


class KeysByPlace(Protocol):
    """The key of the sample at a place."""

    def __getitem__(self, place: int, /) -> str: ...


class Samples(Protocol):
    """Samples that are read by place, a number.

    `samples[i]` gives the columns of one and raises `BadSample` if it cannot be read. An image is encoded bytes, a path (see
    `folder_of`), a Pillow image or a `uint8 [H, W, 3]` array.
    """

    @property
    def name(self) -> str:
        """The user's specification, for messages."""
        ...

    @property
    def keys(self) -> KeysByPlace:
        """A stable name of each sample; its random draws depend on it."""
        ...

    def __getitem__(self, index: int) -> Mapping[str, object]: ...

    def folder_of(self, index: int) -> str | None:
        """The folder that relative image paths of a sample start from."""
        ...


class Source(Samples, Protocol):
    """Samples with random access, by position from 0 on."""

    @property
    def keys(self) -> Sequence[str]:
        """A stable name of each sample, created on access; its random draws depend on it."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that samples have; rare ones of a large source may be missing."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the integers of the `label` column, if the source has them."""
        ...

    def __len__(self) -> int: ...


class LazyColumns(Mapping[str, object]):
    """The columns of one sample, some of them created on access: a pass over the captions reads no image."""

    def __init__(self, ready: Mapping[str, object], later: Mapping[str, Callable[[], object]]) -> None:
        self._ready = ready
        self._later = later

    def __getitem__(self, name: str) -> object:
        if name in self._later:
            return self._later[name]()
        return self._ready[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._later
        yield from (name for name in self._ready if name not in self._later)

    def __len__(self) -> int:
        return len(self._later.keys() | self._ready.keys())


class JoinedSource:
    """Several sources one after the other."""

    def __init__(self, sources: Sequence[Source], name: str = "") -> None:
        self.name = name or ", ".join(source.name for source in sources)
        self.columns = tuple(dict.fromkeys(column for source in sources for column in source.columns))
        classes = {source.class_names for source in sources}
        # Label 3 of one source and label 3 of another are the same class only if both name their classes alike.
        self.class_names = classes.pop() if len(classes) == 1 else None
        self.remarks = list(dict.fromkeys(remark for source in sources for remark in remarks_of(source)))
        self._sources = list(sources)
        self._first = [0, *itertools.accumulate(map(len, sources))]
        self._repetitions = Repetitions()
        self._repetitions = number_repetitions(self.keys)

    @property
    def keys(self) -> Keys:
        every = itertools.chain.from_iterable
        return Keys(
            len(self), self._key, lambda: self._repetitions.unique_in_order(every(one.keys for one in self._sources))
        )

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, index: int) -> Mapping[str, object]:
        source, position = self._place(index)
        return source[position]

    def folder_of(self, index: int) -> str | None:
        source, position = self._place(index)
        return source.folder_of(position)

    def parts(self) -> tuple[list[str], np.ndarray]:
        """The names of the sources, and for each sample the number of the one that it comes from."""
        return [source.name for source in self._sources], np.repeat(np.arange(len(self._sources)), np.diff(self._first))

    def _place(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._first, index) - 1
        return self._sources[number], index - self._first[number]

    def _key(self, index: int) -> str:
        source, position = self._place(index)
        return self._repetitions.unique(index, source.keys[position])


class SelectedSource:
    """Some of the samples of a source, in the order of their indices."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.name = source.name
        self.columns = source.columns
        self.class_names = source.class_names
        self.remarks = remarks_of(source)
        self._source = source
        self._indices = np.asarray(indices, dtype=smallest_unsigned(len(source)))

    @property
    def keys(self) -> Keys:
        keys = self._source.keys
        return Keys(len(self), lambda index: keys[int(self._indices[index])])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Mapping[str, object]:
        return self._source[int(self._indices[index])]

    def folder_of(self, index: int) -> str | None:
        return self._source.folder_of(int(self._indices[index]))

    def parts(self) -> tuple[list[str], np.ndarray]:
        """The names of the sources, and for each sample the number of the one that it comes from."""
        names, numbers = parts_of(self._source)
        return names, numbers[self._indices]


def split_samples(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """The samples without a drawn share of them, and that share, both in their order; at least one sample is drawn."""
    count = max(round(share * len(source)), 1)
    drawn = generator(seed, "reference").permutation(len(source))
    rest, kept = (np.sort(part) for part in (drawn[count:], drawn[:count]))
    return SelectedSource(source, rest), SelectedSource(source, kept)


def some_samples(source: Source, most: int) -> Source:
    """At most `most` of the samples, spread evenly, so that samples in the order of their classes are of all of them."""
    return source if most >= len(source) else SelectedSource(source, probed_positions(len(source), most))


def parts_of(source: Source) -> tuple[list[str], np.ndarray]:
    """The names of the specifications, and for each sample the number of its specification."""
    parts: Callable[[], tuple[list[str], np.ndarray]] | None = getattr(source, "parts", None)
    return ([source.name], np.zeros(len(source), dtype=np.int64)) if parts is None else parts()


def remarks_of(source: Source) -> list[str]:
    """Remarks of a source on how it was read, one line each: what it left out, what it assumed."""
    remarks: list[str] = getattr(source, "remarks", [])
    return remarks


def is_sound(source: Source) -> bool:
    """Whether the samples are generated by a built-in source, so that none can be damaged or left out."""
    sound: bool = getattr(source, "sound", False)
    return sound


def fingerprint(source: Source) -> str:
    """SHA-256 of the sample keys in order, by which a run folder identifies its data."""
    keys = source.keys
    if isinstance(keys, Keys) and keys.fingerprint is not None:
        return keys.fingerprint
    digest = Fingerprint()
    for key in keys:
        digest.add(key)
    return digest.hexdigest()


def source_facts(source: Source) -> dict[str, object]:
    """The facts of the data in a run folder: its name, number of samples and fingerprint."""
    facts = {"name": source.name, "samples": len(source), "fingerprint": fingerprint(source)}
    return facts | ({"remarks": remarks_of(source)} if remarks_of(source) else {})


def probed_positions(length: int, most: int = 64) -> list[int]:
    """At most `most` of `length` positions, spread evenly and in order, the first among them."""
    count = min(length, most)
    return [index * length // count for index in range(count)]


def first_fault(source: Source) -> str | None:
    """The reason why samples cannot be read, if none of up to 64 can; else None."""
    reason = None
    for index in probed_positions(len(source)):
        try:
            source[index]
        except BadSample as fault:
            reason = reason or fault.reason
        else:
            return None
    return reason


class _Probed(Protocol):
    """A source that does not know its columns yet."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, object]: ...


def probed_columns(source: _Probed) -> tuple[str, ...]:
    """The columns that up to 64 samples spread over the source have; bad ones are passed over."""
    names: dict[str, None] = {}
    for index in probed_positions(len(source)):
        with contextlib.suppress(BadSample):
            names.update(dict.fromkeys(itertools.islice(source[index], _MOST_COLUMNS)))
    return tuple(sorted(names)[:_MOST_COLUMNS])
