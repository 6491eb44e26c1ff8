"""Which samples of a stream form which batch: a function of the seed, independent of the number of processes and workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import BatchLargerThanData, NotDivisible, StreamUnusable
from vlmdsl.runtime.data.streams import SampleStream
from vlmdsl.runtime.draws import generator
from vlmdsl.source import Span

__all__ = ["Chunk", "Lane", "lanes_of", "workers_for_turns"]

_MOST_LANES = 16
_MOST_TURNS = 4
_PLACE = Span("<command line>", 0, 0)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The places of one lane's samples for one batch, in its pass `epoch`, and those of their replacements."""

    epoch: int
    places: list[int]
    spares: list[int]


class Lane:
    """Shards of a stream that are read one after the other: every `lanes`-th one from `number` on. Contributes `share`
    samples to every batch.

    A pass reads each shard once, in an order that is drawn for it. Samples are shuffled in windows of at least `window`
    samples (a multiple of the share) and cut into shares; the remainder at the end of a pass, less than a share, is dropped.
    Lanes have no shard in common and no share is of two passes, so no batch has a sample twice, and lanes are independent: a
    shorter one begins its next pass earlier.
    """

    def __init__(self, stream: SampleStream, number: int, lanes: int, *, share: int, window: int, seed: int) -> None:
        self._stream = stream
        self._number, self._lanes, self.share, self._seed = number, lanes, share, seed
        self._window = -(-window // share) * share
        self._next, self._epoch = 0, -1
        self._chunks: Iterator[Chunk] = iter(())

    def __getstate__(self) -> dict[str, Any]:
        # For a worker process, which starts again: an iterator has an open file.
        return self.__dict__ | {"_next": 0, "_epoch": -1, "_chunks": iter(())}

    def chunk(self, position: int) -> Chunk:
        """The chunk of batch `position` (counted from 0); consecutive positions read no sample twice.

        Raises `DiagnosticError` where a shard is damaged, and where the lane has less than one share.
        """
        if not 0 <= position - self._next < 2 * self._window // self.share:
            self._jump(position)
        while True:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._epoch += 1
                self._chunks = self._pass(self._epoch)
                chunk = next(self._chunks, None) or self._too_few()
            self._next += 1
            if self._next > position:
                return chunk

    def _jump(self, position: int) -> None:
        """Continue at a batch, from the numbers of samples in the shards that come before it."""
        self._epoch, self._next = 0, position
        self._chunks = self._pass_from(0, position)
        first = next(self._chunks, None)
        if first is not None:
            self._chunks = itertools.chain([first], self._chunks)
            return
        # The first pass ends before it: it is known by now how long one is.
        total = sum(self._stream.count(shard) for shard in self._shards)
        per_pass = total // self._window * self._per_window + total % self._window // self.share
        if not per_pass:
            self._too_few()
        self._epoch, number = divmod(position, per_pass)
        self._chunks = self._pass_from(self._epoch, number)

    @property
    def _per_window(self) -> int:
        """The chunks of a whole window."""
        return self._window // self.share

    def _pass_from(self, epoch: int, number: int) -> Iterator[Chunk]:
        """The chunks of a pass from that number on."""
        chunks = self._pass(epoch, number // self._per_window)
        return itertools.islice(chunks, number % self._per_window, None)

    @property
    def _shards(self) -> range:
        return range(self._number, self._stream.shards, self._lanes)

    def _pass(self, epoch: int, first: int = 0) -> Iterator[Chunk]:
        """The chunks of a pass, from window `first` on."""
        places = self._places(epoch, first * self._window)
        for number in itertools.count(first):
            window = list(itertools.islice(places, self._window))
            order = generator(self._seed, "window", epoch, self._number, number).permutation(len(window))
            shuffled = [window[position] for position in order.tolist()]
            try:
                for start in range(0, len(window) - self.share + 1, self.share):
                    end = start + self.share
                    yield Chunk(epoch, shuffled[start:end], shuffled[end:] + shuffled[:start])
            finally:
                self._stream.forget(window)
            if len(window) < self._window:
                return

    def _places(self, epoch: int, skipped: int) -> Iterator[int]:
        """The places of a pass in the order in which they are read, without the first ones."""
        order = generator(self._seed, "shards", epoch, self._number).permutation(self._shards)
        for shard in order.tolist():
            if skipped and self._stream.count(shard) <= skipped:
                skipped -= self._stream.count(shard)
            else:
                yield from self._stream.places(shard, skipped)
                skipped = 0

    def _too_few(self) -> Chunk:
        samples = sum(self._stream.count(shard) for shard in self._shards)
        notes = (f"{self._lanes} shards are read side by side, and each contributes {self.share} samples to a batch",)
        help = "`--set data.stream_lanes=1`, a smaller `train.batch`, or more data"
        too_few = BatchLargerThanData.at(_PLACE, samples=samples, batch=self.share, notes=notes, help=(help,))
        raise DiagnosticError((too_few,))


def lanes_of(
    stream: SampleStream, *, batch: int, lanes: int | None, window: int, seed: int, rank: int, world: int
) -> list[list[Lane]]:
    """The lanes of a stream that a process reads, `lanes` for each batch over all processes; None: as many as divide the
    batch, up to 16 and to the number of shards.

    Batches take turns, and each turn has lanes of its own: one turn for a stream that any process can read anywhere; up to
    four, of fewer lanes each, where samples are read once, so that as many worker processes can share the turns out.

    Batches do not depend on how many processes share the lanes out. Raises `DiagnosticError` if it cannot be done.
    """
    most = min(_MOST_LANES, stream.shards)
    if stream.read_once:
        most = max(most // _MOST_TURNS, 1)
    total = lanes or next(number for number in range(min(most, batch), 0, -1) if batch % number == 0)
    faults: list[Diagnostic] = []
    if batch % world:
        help = f"`--set train.batch={max(batch // world, 1) * world}`"
        faults.append(NotDivisible.at(_PLACE, batch=batch, world=world, help=(help,)))
    elif total > stream.shards:
        reason = f"it has {stream.shards} shards, fewer than the {total} that are to be read side by side"
        faults.append(StreamUnusable.at(_PLACE, reason=reason, help=(f"`--set data.stream_lanes={stream.shards}`",)))
    elif batch % total or total % world:
        reason = f"{total} shards side by side do not divide a batch of {batch}, or are not a multiple of {world} processes"
        help = "set `data.stream_lanes` to such a number, or use more shards"
        faults.append(StreamUnusable.at(_PLACE, reason=reason, help=(help,)))
    if faults:
        raise DiagnosticError(tuple(faults))
    turns = next(number for number in (_MOST_TURNS, 2, 1) if number * total <= stream.shards) if stream.read_once else 1
    own = range(rank * total // world, (rank + 1) * total // world)
    every = partial(Lane, stream, lanes=turns * total, share=batch // total, window=window, seed=seed)
    return [[every(turn * total + number) for number in own] for turn in range(turns)]


def workers_for_turns(stream: SampleStream, turns: int, most: int) -> int:
    """How many of `most` worker processes can load: where samples are read once, so many that none needs what another one
    has come by."""
    if not stream.read_once:
        return most
    return max((number for number in range(1, most + 1) if turns % number == 0), default=0)
