"""The batches of a stream."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data.collate import Collation
from vlmdsl.runtime.data.lanes import Chunk, Lane
from vlmdsl.runtime.data.loading import LoadedBatch, Tally
from vlmdsl.runtime.data.report import Skipped, too_few_usable
from vlmdsl.runtime.data.sample import Sample, SampleReader
from vlmdsl.runtime.data.source import BadSample

__all__ = ["UNKNOWN", "StreamBatches"]

UNKNOWN = sys.maxsize
"""Unknown until the stream has ended."""


class StreamBatches(Dataset[LoadedBatch]):
    """Position (all batches in a row) -> this process's share of that batch: what each lane of its turn gives."""

    per_epoch = UNKNOWN

    def __init__(
        self,
        reader: SampleReader,
        turns: Sequence[Sequence[Lane]],
        draws: Callable[[int, int, Sequence[str]], dict[str, Tensor]],
    ) -> None:
        self._reader, self._turns, self._draws = reader, turns, draws

    def __getitem__(self, position: int) -> LoadedBatch:
        tally = Tally([], Counter())
        number, turn = divmod(position, len(self._turns))
        lanes = self._turns[turn]
        collation = Collation(self._reader.values, sum(lane.share for lane in lanes))
        drawn: list[dict[str, Tensor]] = []
        try:
            for lane in lanes:
                chunk = lane.chunk(number)
                drawn.append(self._draws(position, chunk.epoch, self._add(chunk, collation, tally)))
        except DiagnosticError as error:
            # Returned: an exception of a worker process loses what it holds.
            return LoadedBatch(None, tally.skipped, tally.counts, error.diagnostics[0])
        batch = collation.batch()
        # What is drawn for the step is the same for all lanes, what is drawn for its samples is not.
        draws = {
            name: torch.cat([part[name] for part in drawn]) if first.ndim else first for name, first in drawn[0].items()
        }
        return LoadedBatch(replace(batch, draws=draws), tally.skipped, tally.counts)

    def _add(self, chunk: Chunk, collation: Collation, tally: Tally) -> list[str]:
        """Add the samples of a chunk, those that cannot be used replaced by others of the same window, each by another.

        Returns their keys.
        Raises `DiagnosticError` if the window has too few.
        """
        spares = iter(chunk.spares)
        keys: list[str] = []
        for place in chunk.places:
            sample = self._read(place, chunk.epoch, tally)
            while sample is None and (place := next(spares, -1)) >= 0:
                sample = self._read(place, chunk.epoch, tally)
            if sample is None:
                total = len(chunk.places) + len(chunk.spares)
                name, share = self._reader.source.name, len(chunk.places)
                raise DiagnosticError((too_few_usable(name, total, len(keys), share, tally.skipped),))
            keys.append(sample.key)
            collation.add(sample)
        return keys

    def _read(self, place: int, epoch: int, tally: Tally) -> Sample | None:
        try:
            return self._reader.read(place, epoch, tally.counts)
        except BadSample as fault:
            tally.skipped.append(Skipped(self._reader.source.keys[place], fault.reason))
            return None
