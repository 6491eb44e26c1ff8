"""Which samples make up which batch: a function of the seed and the epoch, so that runs resume and processes agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmdsl.runtime.data.mapping import SOURCE, FieldMapping
from vlmdsl.runtime.data.source import BadSample, Source, part_of_sample
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values import first_value
from vlmdsl.runtime.values.scalar import word_of

__all__ = ["Groups", "Order", "Place", "groups_by_source"]

Groups = dict[str, np.ndarray]
"""Name of a source -> the indices of its samples."""


def groups_by_source(source: Source, mapping: FieldMapping) -> Groups:
    """The samples by where they come from: their specification, and what the field `source` says if it has a column.

    Reads that column of every sample.
    """
    found: dict[str, list[int]] = {}
    for index in range(len(source)):
        name = part_of_sample(source, index)
        if SOURCE in mapping:
            try:
                name = f"{name}: {word_of(first_value(source[index], mapping.columns[SOURCE]))}"
            except BadSample:
                # It will be skipped, and told, when its batch is made.
                name = f"{name}: None"
        found.setdefault(name, []).append(index)
    return {name: np.array(indices) for name, indices in found.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch is cut from: its samples are `order[start : start + batch]`."""

    order: np.ndarray
    start: int


class Order:
    """The batches of every epoch, each of `batch` samples of one group; without groups of all `samples` alike.

    In each epoch the samples of every group are shuffled and cut into as many full batches as they give; what is left over
    waits for another epoch. The batches then come in random order: the next one is of a group with a probability
    proportional to the batches that the group has left.
    """

    def __init__(self, samples: int, batch: int, seed: int, groups: Iterable[np.ndarray] | None = None) -> None:
        self.batch = batch
        self._seed = seed
        self._groups: Sequence[np.ndarray] = [np.arange(samples)] if groups is None else list(groups)
        self.per_epoch = sum(len(group) // batch for group in self._groups)
        self._epoch: tuple[int, list[np.ndarray], list[tuple[int, int]]] = (-1, [], [])

    def place(self, epoch: int, number: int) -> Place:
        """Where batch `number` of `epoch` is cut from."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, *self._drawn(epoch))
        _, orders, batches = self._epoch
        group, within = batches[number]
        return Place(orders[group], within * self.batch)

    def candidates(self, place: Place, slot: int) -> Iterator[int]:
        """The sample for a slot of a batch, then those that may stand in for it if it is bad, all of the same group.

        They come from the same slot of the batches after it, around the epoch: each slot looks for itself, so no process
        needs to know what another one skipped; and slots never meet, so a stand-in is not in the batch a second time.
        """
        first, count = place.start + slot, len(place.order)
        places = [range(first, count, self.batch), range(first % self.batch, first, self.batch)]
        for chosen in places:
            yield from (int(place.order[position]) for position in chosen)

    def everyone(self, place: Place) -> Iterator[int]:
        """All samples of the group, around the epoch from the batch on."""
        count = len(place.order)
        yield from (int(place.order[(place.start + step) % count]) for step in range(count))

    def _drawn(self, epoch: int) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
        """The shuffled groups of an epoch, and (group, number within it) of each batch."""
        counts = [len(group) // self.batch for group in self._groups]
        batches = [(number, within) for number, count in enumerate(counts) for within in range(count)]
        if len(self._groups) == 1:
            (group,) = self._groups
            return [group[generator(self._seed, "order", epoch).permutation(len(group))]], batches
        orders = [
            group[generator(self._seed, "order", epoch, number).permutation(len(group))]
            for number, group in enumerate(self._groups)
        ]
        mixed = generator(self._seed, "batches", epoch).permutation(len(batches))
        return orders, [batches[position] for position in mixed.tolist()]
