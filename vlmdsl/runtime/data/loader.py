"""Batches for training and for evaluation.

Loaders are stateless: batch `k` of epoch `e` is a function of the data and the seed, independent of the number of worker
processes and training processes, and of resuming.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import BatchLargerThanData, NotDivisible
from vlmdsl.ir import Node, Reading, ramps_at, root_field
from vlmdsl.runtime.data.collate import Collation
from vlmdsl.runtime.data.context import NO_MATERIALS, Materials
from vlmdsl.runtime.data.lanes import lanes_of, workers_for_turns
from vlmdsl.runtime.data.loading import Counting, LoadedBatch, Tally, in_order
from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.order import Groups, Order, Part, Place
from vlmdsl.runtime.data.report import Skipped, SkipReport, SkipWatch, too_few_usable
from vlmdsl.runtime.data.sample import BegunSample, Loaded, Sample, SampleReader
from vlmdsl.runtime.data.source import BadSample, Source
from vlmdsl.runtime.data.stream_batches import UNKNOWN, StreamBatches
from vlmdsl.runtime.data.streams import SampleStream, is_stream
from vlmdsl.runtime.data.views import View, view_of
from vlmdsl.runtime.draws import sample_draws, step_draws
from vlmdsl.runtime.values import Batch, ImageFormat
from vlmdsl.source import Span

__all__ = ["BatchLoader", "EvaluationLoader", "check_batch", "values_of_step"]

_PLACE = Span("<command line>", 0, 0)
_CACHE_BYTES = 512 * 2**20
_AHEAD = 16
"""Samples whose encoded images are held at once."""


class _TrainingBatches(Dataset[LoadedBatch]):
    """Position (all batches of all epochs in a row) -> this process's share of that batch."""

    def __init__(
        self,
        reader: SampleReader,
        order: Order,
        draws: Callable[[int, int, Sequence[str]], dict[str, Tensor]],
        rank: int,
        world: int,
    ) -> None:
        self.order = order
        self._reader, self._draws = reader, draws
        self.per_epoch = order.per_epoch
        share = order.batch // world
        self._slots = range(rank * share, (rank + 1) * share)

    def __getitem__(self, position: int) -> LoadedBatch:
        epoch, number = divmod(position, self.order.per_epoch)
        place = self.order.place(epoch, number)
        tally = Tally([], Counter())
        collation = self._collated(self._own(epoch, place, self._slots, [tally] * len(self._slots)))
        if len(collation) < len(self._slots):  # a slot has no good sample
            tally = Tally([], Counter())
            collation = self._collated(self._borrowed(epoch, place, tally))
        if len(collation) < len(self._slots):
            return LoadedBatch(None, tally.skipped, tally.counts, self._too_few(epoch, place))
        batch = collation.batch()
        return LoadedBatch(replace(batch, draws=self._draws(position, epoch, batch.keys)), tally.skipped, tally.counts)

    def _collated(self, chosen: Iterable[tuple[int, Sample] | None]) -> Collation:
        """The samples up to the first that is missing."""
        collation = Collation(self._reader.values, len(self._slots))
        for choice in chosen:
            if choice is None:
                break
            collation.add(choice[1])
        return collation

    def _own(
        self, epoch: int, place: Place, slots: Sequence[int], tallies: Iterable[Tally]
    ) -> Iterator[tuple[int, Sample] | None]:
        """The first good candidate of each slot."""
        candidates = [self._begun(epoch, self.order.candidates(place, slot)) for slot in slots]
        first = _some_ahead(next(own) for own in candidates)
        for begun, others, tally in zip(first, candidates, tallies, strict=True):
            yield self._first_good(itertools.chain([begun], others), tally)

    def _begun(self, epoch: int, candidates: Iterable[int]) -> Iterator[BegunSample]:
        return (self._reader.begin(index, epoch) for index in candidates)

    def _first_good(self, candidates: Iterable[BegunSample], tally: Tally) -> tuple[int, Sample] | None:
        """The first good one of the candidates, with its index; None if none is good."""
        for begun in candidates:
            try:
                return begun.sample.index, self._reader.finish(begun, tally.counts)
            except BadSample as fault:
                tally.skipped.append(Skipped(self._reader.source.keys[begun.sample.index], fault.reason))
        return None

    def _borrowed(self, epoch: int, place: Place, tally: Tally) -> list[tuple[int, Sample] | None]:
        """The samples of the slots; a slot without a good sample gets one that no slot of the batch has.

        The samples of other processes' slots are read here as well, so that all processes borrow alike.
        """
        aside = Tally([], Counter())
        tallies = [tally if slot in self._slots else aside for slot in range(self.order.batch)]
        every = list(self._own(epoch, place, range(self.order.batch), tallies))
        taken = {index for index, _ in filter(None, every)}
        for slot, choice in enumerate(every):
            if choice is None:
                free = (index for index in self.order.everyone(place) if index not in taken)
                every[slot] = choice = self._first_good(self._begun(epoch, free), tallies[slot])
                taken |= set() if choice is None else {choice[0]}
        return [every[slot] for slot in self._slots]

    def _too_few(self, epoch: int, place: Place) -> Diagnostic:
        """The reason why a batch cannot be filled, over all of its possible samples."""
        aside = Tally([], Counter())
        good = sum(self._first_good(self._begun(epoch, (index,)), aside) is not None for index in self.order.everyone(place))
        return too_few_usable(self._reader.source.name, len(place.order), good, self.order.batch, aside.skipped)


def _some_ahead(begun: Iterator[BegunSample]) -> Iterator[BegunSample]:
    """The same, several begun before the first of them is finished (`SampleReader.begin`)."""
    while some := list(itertools.islice(begun, _AHEAD)):
        yield from some


def values_of_step(
    readings: Iterable[Reading],
    fields: Mapping[str, str],
    *,
    noise: Mapping[str, int] | None = None,
    segments: Mapping[str, str] | None = None,
    boxes: Mapping[str, str] | None = None,
) -> dict[str, Loaded]:
    """What a batch holds for a step, by name; the arguments are those of `BatchLoader`."""
    readings = list(readings)
    first = next((reading.form for reading in readings if isinstance(reading.form, ImageFormat)), None)
    values = {name: Loaded(View(name, kind), first if kind == "Boxes" else None) for name, kind in fields.items()}
    named = {reading.name: reading for reading in readings}
    for name, own in (boxes or {}).items():  # places in what a tower sees of an image
        seen = named[own]
        values[name] = Loaded(View(name, "Boxes"), seen.form, image=root_field(seen.source).string("name"))
    for reading in readings:
        beside = (noise or {}).get(reading.name), (segments or {}).get(reading.name)
        values[reading.name] = Loaded(view_of(reading.source), reading.form, *beside)
    return values


class BatchLoader:
    """An endless iterator over this process's share of each training batch.

    `draws` are the objective's (`ir.draws`): batch k holds the numbers drawn for step k, and those of its samples.
    `ramps` (`ir.ramps`) follow a run of `steps`; ValueError for one that needs to know how long it is.
    `batch` is the size over all `world` processes. A sample that cannot be used is counted in `report` and replaced, so that
    every batch is full; the samples that are left over at the end of an epoch are left out of it. `state_dict()` is the
    position of the next batch: two integers. With `groups` (name -> indices) each batch is of one group, see `Order`.
    A stream is read in `lanes` (how many shards side by side) and shuffled in windows of `window` samples, see `Lane`; each
    lane counts its own epochs, and the position counts all batches. `readings` are what modules take, each in its form
    (`VisionLanguageModel.readings`), `noise` how many numbers each sample of one draws for its tower, by its name
    (`VisionLanguageModel.noise_lengths`), `segments` the field that holds the segments of an image, where these are read,
    by the name of its reading (`VisionLanguageModel.segment_fields`), `boxes` the reading that boxes are places in, by the
    name of their field (`VisionLanguageModel.boxed_readings`), `parts` the weighted sources (`weighted_parts`),
    `fields` further fields by name with their kinds.

    Each sample of a batch is in it once. `tell` is called with a line about the samples skipped so far, when their
    number has doubled. Raises `DiagnosticError` for a batch that is larger than the data or no multiple of `world`, and,
    when batches are drawn, if fewer samples can be used than a batch has, or a larger share than `max_bad_share` cannot.
    """

    def __init__(
        self,
        source: Source | SampleStream,
        mapping: FieldMapping,
        readings: Iterable[Reading],
        *,
        fields: Mapping[str, str] | None = None,
        draws: Iterable[Node] = (),
        ramps: Iterable[Node] = (),
        steps: int = 0,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        cache_bytes: int = _CACHE_BYTES,
        materials: Materials = NO_MATERIALS,
        groups: Groups | None = None,
        parts: Sequence[Part] = (),
        noise: Mapping[str, int] | None = None,
        segments: Mapping[str, str] | None = None,
        boxes: Mapping[str, str] | None = None,
        max_bad_share: float = 1.0,
        lanes: int | None = None,
        window: int = 1000,
    ) -> None:
        values = values_of_step(readings, fields or {}, noise=noise, segments=segments, boxes=boxes)
        budget = cache_bytes // max(workers, 1)
        reader = SampleReader(source, mapping, values, seed=seed, cache_bytes=budget, materials=materials)
        numbers = partial(_Numbers, tuple(draws), tuple(ramps), seed, steps)
        self._batches: _TrainingBatches | StreamBatches
        if is_stream(source):
            turns = lanes_of(source, batch=batch, lanes=lanes, window=window, seed=seed, rank=rank, world=world)
            self._batches = StreamBatches(reader, turns, numbers(0))
            workers = workers_for_turns(source, len(turns), workers)
        else:
            order = _checked_order(source, batch, seed, groups, world, parts)
            self._batches = _TrainingBatches(reader, order, numbers(order.per_epoch), rank, world)
        self._workers = workers
        self._next = 0
        notes = [*([] if groups is None else [_one_source_note(groups, batch)]), *map(_weight_note, parts)]
        self.report = SkipReport(notes=notes)
        self.tell: Callable[[str], None] = lambda line: None
        samples = UNKNOWN if is_stream(source) else len(source)
        self._watch = SkipWatch(source.name, samples, max_bad_share)

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in an epoch; of a stream, which has no end that is known, all there will ever be."""
        return self._batches.per_epoch

    def state_dict(self) -> dict[str, int]:
        """The position of the batch that comes next: its epoch, and its number in the epoch."""
        epoch, batch = divmod(self._next, self.batches_per_epoch)
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a position; affects iterators made afterwards."""
        self.go_to(state["epoch"] * self.batches_per_epoch + state["batch"])

    def go_to(self, number: int) -> None:
        """Continue from a batch, counted from the first of the run; affects iterators made afterwards."""
        self._next = number

    def __iter__(self) -> Iterator[Batch]:
        for loaded in in_order(self._batches, Counting(self._next), self._workers):
            self.report.add(loaded.skipped, loaded.views)
            if loaded.fault is not None:
                raise DiagnosticError((loaded.fault,))
            assert loaded.batch is not None
            line = self._watch.after(len(loaded.batch), loaded.skipped)
            if line:
                self.tell(line)
            self._next += 1
            yield loaded.batch


def _checked_order(source: Source, batch: int, seed: int, groups: Groups | None, world: int, parts: Sequence[Part]) -> Order:
    """The order of the samples; `DiagnosticError` where they fill no batch, or processes cannot split it evenly."""
    largest = max(map(len, groups.values())) if groups else sum(part.count for part in parts) or len(source)
    notes = () if groups is None else ("the recipe asks for batches of one source each, and this is the largest",)
    check_batch(largest, batch, world, notes)
    return Order(len(source), batch, seed, None if groups is None else groups.values(), parts)


def check_batch(samples: int, batch: int, world: int, notes: tuple[str, ...] = (), *, setting: str = "train.batch") -> None:
    """`DiagnosticError` where so many samples fill no batch, or `world` processes cannot split it evenly; its size is the
    value of `setting`."""
    faults: list[Diagnostic] = []
    if batch > samples:
        help = f"`--set {setting}={samples}` or more data"
        faults.append(BatchLargerThanData.at(_PLACE, samples=samples, batch=batch, notes=notes, help=(help,)))
    if batch % world:
        help = f"`--set {setting}={max(batch // world, 1) * world}`"
        faults.append(NotDivisible.at(_PLACE, batch=batch, world=world, help=(help,)))
    if faults:
        raise DiagnosticError(tuple(faults))


def _one_source_note(groups: Groups, batch: int) -> str:
    """How batches of one source each were made, for the report."""
    if len(groups) == 1:
        return "one source per batch: the data is one source, so batches are mixed"
    small = [name for name, indices in groups.items() if len(indices) < batch]
    note = f"one source per batch: {len(groups) - len(small)} sources"
    if small:
        left_out = sum(len(groups[name]) for name in small)
        note += f"; never used, with less than a batch each: {left_out:,} samples of {', '.join(small)}"
    return note


def _weight_note(part: Part) -> str:
    """How many samples of a weighted source are in an epoch, for the report."""
    return f"weighted: {part.count:,} of the {len(part.indices):,} samples of {part.name} in each epoch"


@dataclass(frozen=True)
class _Numbers:
    """The numbers of each step besides the data: draws of the step and of its samples, and schedules."""

    draws: tuple[Node, ...]
    ramps: tuple[Node, ...]
    seed: int
    steps: int
    per_epoch: int

    def __call__(self, step: int, epoch: int, keys: Sequence[str]) -> dict[str, Tensor]:
        ramps = ramps_at(self.ramps, step, self.steps, self.per_epoch)
        following = {name: torch.tensor(value, dtype=torch.float32) for name, value in ramps.items()}
        return step_draws(self.draws, self.seed, step) | sample_draws(self.draws, self.seed, epoch, keys) | following


class _EvaluationBatches(Dataset[LoadedBatch]):
    """Number -> the good samples of that chunk of the source."""

    def __init__(self, reader: SampleReader, batch: int, samples: int) -> None:
        self._reader = reader
        self._batch, self._samples = batch, samples

    def __len__(self) -> int:
        return -(-self._samples // self._batch)

    def __getitem__(self, number: int) -> LoadedBatch:
        skipped: list[Skipped] = []
        counts: Counter[str] = Counter()
        collation = Collation(self._reader.values, self._batch)
        indices = range(number * self._batch, min((number + 1) * self._batch, self._samples))
        for begun in _some_ahead(self._reader.begin(index, 0) for index in indices):
            try:
                collation.add(self._reader.finish(begun, counts))
            except BadSample as fault:
                skipped.append(Skipped(self._reader.source.keys[begun.sample.index], fault.reason))
        return LoadedBatch(collation.batch() if len(collation) else None, skipped, counts)


class EvaluationLoader:
    """The good samples of a source in order, once per iteration.

    `values` says what a batch holds, by name; batches with bad samples in them are smaller. `limit` is the most samples that
    are looked at, `skipped_batches` how many batches to begin after.
    """

    def __init__(
        self,
        source: Source,
        mapping: FieldMapping,
        values: Mapping[str, Loaded],
        *,
        batch: int,
        limit: int | None = None,
        skipped_batches: int = 0,
        workers: int = 0,
        cache_bytes: int = _CACHE_BYTES,
        materials: Materials = NO_MATERIALS,
    ) -> None:
        samples = len(source) if limit is None else min(limit, len(source))
        budget = cache_bytes // max(workers, 1)
        materials = replace(materials, draw_captions=False)
        reader = SampleReader(source, mapping, values, cache_bytes=budget, materials=materials)
        self._batches = _EvaluationBatches(reader, batch, samples)
        self._workers = workers
        self._first = skipped_batches
        self.report = SkipReport()

    def __iter__(self) -> Iterator[Batch]:
        for loaded in in_order(self._batches, range(self._first, len(self._batches)), self._workers):
            self.report.add(loaded.skipped, loaded.views)
            if loaded.batch is not None:
                yield loaded.batch
