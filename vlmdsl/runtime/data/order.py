"""Which samples form which batch: a function of the seed and the epoch, so that runs resume and processes agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmdsl.runtime.data.keys import smallest_unsigned
from vlmdsl.runtime.data.mapping import SOURCE, FieldMapping
from vlmdsl.runtime.data.source import BadSample, Source, parts_of
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values import first_value
from vlmdsl.runtime.values.scalar import word_of

__all__ = ["Groups", "Order", "Part", "Place", "groups_by_source", "weighted_parts"]

Groups = dict[str, np.ndarray]
"""Name of a source -> the indices of its samples."""


def groups_by_source(source: Source, mapping: FieldMapping) -> Groups:
    """The samples by source: their specification, and the field `source` if it has a column.

    Reads that column of every sample.
    """
    names, numbers = parts_of(source)
    if SOURCE in mapping:
        numbered: dict[str, int] = {}
        said = (f"{names[number]}: {_said(source, index, mapping)}" for index, number in enumerate(numbers))
        numbers = np.fromiter((numbered.setdefault(name, len(numbered)) for name in said), np.uint32, count=len(source))
        names = list(numbered)
    first: dict[str, int] = {}
    # Specifications of the same name are one source.
    merged = np.array([first.setdefault(name, number) for number, name in enumerate(names)])[numbers]
    in_order = dict.fromkeys(merged[np.sort(np.unique(merged, return_index=True)[1])].tolist())
    return {names[number]: np.flatnonzero(merged == number) for number in in_order}


def _said(source: Source, index: int, mapping: FieldMapping) -> str | None:
    """The source in a sample."""
    try:
        return word_of(first_value(source[index], mapping.columns[SOURCE]))
    except BadSample:
        return None  # it is skipped and reported when its batch is made


@dataclass(frozen=True, slots=True)
class Part:
    """A source of weighted samples: its name, the indices of its samples, and how many of them, drawn for it, are in each
    epoch."""

    name: str
    indices: np.ndarray
    count: int


def weighted_parts(source: Source, weights: Sequence[float]) -> list[Part]:
    """The parts of a source that is joined of as many as there are `weights`.

    As many samples as possible are in an epoch without one that is in it twice, so that one of the parts is whole.
    """
    names, numbers = parts_of(source)
    indices = [np.flatnonzero(numbers == number).astype(smallest_unsigned(len(source))) for number in range(len(names))]
    most = min(len(own) / weight for own, weight in zip(indices, weights, strict=True))
    # 3 of 10 is 0.3, which is a little less in binary
    counts = [int(weight * most + 1e-9) for weight in weights]
    return [Part(*part) for part in zip(names, indices, counts, strict=True)]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a batch in an order: its samples are `order[start : start + batch]`."""

    order: np.ndarray
    start: int


class Order:
    """The batches of every epoch, each of `batch` samples of one group; without groups of all `samples` alike.

    In each epoch the samples of every group are shuffled and cut into full batches; the remainder is left out of this epoch.
    The batches are then mixed: the next one is of a group with a probability proportional to the batches that the group has
    left. Of weighted `parts` each epoch draws as many samples as they say, and no others.
    """

    def __init__(
        self,
        samples: int,
        batch: int,
        seed: int,
        groups: Iterable[np.ndarray] | None = None,
        parts: Sequence[Part] = (),
    ) -> None:
        self.batch = batch
        self._seed = seed
        self._samples = samples
        self._groups: Sequence[np.ndarray] | None = None if groups is None else list(groups)
        self._parts = parts
        whole = sum(part.count for part in parts) if parts else samples
        counts = [whole // batch] if self._groups is None else [len(group) // batch for group in self._groups]
        self._first = np.concatenate([[0], np.cumsum(counts)])
        """The number of the first batch of each group, before batches are mixed, and how many batches there are."""
        self.per_epoch = int(self._first[-1])
        self._epoch: tuple[int, list[np.ndarray], np.ndarray] = (-1, [], np.empty(0))

    def place(self, epoch: int, number: int) -> Place:
        """Where batch `number` of `epoch` is cut from."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, *self._drawn(epoch))
        _, orders, batches = self._epoch
        if not 0 <= number < self.per_epoch:
            raise IndexError(number)
        chosen = batches[number] if len(orders) > 1 else number
        group = int(np.searchsorted(self._first, chosen, side="right")) - 1
        return Place(orders[group], int(chosen - self._first[group]) * self.batch)

    def candidates(self, place: Place, slot: int) -> Iterator[int]:
        """The sample for a slot of a batch, then its replacements if it is bad, all of the same group.

        They come from the same slot of the batches after it, around the epoch: each slot is searched separately, so no
        process needs to know what another one skipped; and slots never meet, so a stand-in is not in the batch a second
        time.
        """
        first, count = place.start + slot, len(place.order)
        places = [range(first, count, self.batch), range(first % self.batch, first, self.batch)]
        for chosen in places:
            yield from (int(place.order[position]) for position in chosen)

    def everyone(self, place: Place) -> Iterator[int]:
        """All samples of the group, around the epoch from the batch on."""
        count = len(place.order)
        yield from (int(place.order[(place.start + step) % count]) for step in range(count))

    def _drawn(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The shuffled groups of an epoch, and, where there are several, the number of each batch before they were mixed."""
        if self._parts:
            drawn = [
                self._shuffled(part.indices, "part", epoch, number)[: part.count] for number, part in enumerate(self._parts)
            ]
            return [self._shuffled(np.concatenate(drawn), "order", epoch)], np.empty(0)
        if self._groups is None:
            return [self._shuffled(np.arange(self._samples), "order", epoch)], np.empty(0)
        if len(self._groups) == 1:
            return [self._shuffled(self._groups[0], "order", epoch)], np.empty(0)
        orders = [self._shuffled(group, "order", epoch, number) for number, group in enumerate(self._groups)]
        return orders, generator(self._seed, "batches", epoch).permutation(self.per_epoch)

    def _shuffled(self, group: np.ndarray, *purpose: int | str) -> np.ndarray:
        order = generator(self._seed, *purpose).permutation(len(group))
        return group[order].astype(smallest_unsigned(self._samples))
