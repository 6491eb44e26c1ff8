"""A data set named `hf:...` that is read from front to back, without a copy of it on this machine (the extra `datasets`)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data.fetched import cache_folder
from vlmdsl.runtime.data.formats.columns import value_of
from vlmdsl.runtime.data.formats.hugging_face import NamedData, files_of, load_datasets, unusable
from vlmdsl.runtime.data.formats.named_images import NamedImages
from vlmdsl.runtime.data.formats.rows import RowSource
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.source import BadSample, LazyColumns, Source, probed_positions
from vlmdsl.runtime.files import write_atomically
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["NamedDataStream"]

_OF_SHARD = 2**40
"""Places in one shard, in rows."""

_HEAD, _HEAD_ROWS = 4, 250
"""The number of shards that are looked into before the first step, and rows of each that are."""

_AT_ONCE = 64
"""Rows that are taken from the library at once."""

_WHILE_READING = "check the connection and the data; a run that was stopped goes on where it was with `--resume`"

_LONGEST_NUMBER = 20
"""Digits of the length of a shard."""

Row = tuple[Any, int]
"""A table of Arrow, and the number of a row in it."""


class NamedDataStream:
    """The rows of a data set of the Hugging Face hub, or of a local folder, as the library `datasets` streams them.

    Rows pass by once: what a window shuffles is held, as it is stored, until `forget`. A resumed run continues exactly,
    since the length of each shard is remembered in `data.cache` once it has been read; it reads the shard that it stopped
    in from its beginning. Raises `DiagnosticError`: V0901 without the library, V0842 where it cannot read the data set.
    """

    read_once = True

    def __init__(self, data: NamedData, limits: Limits = DEFAULT_LIMITS) -> None:
        datasets = load_datasets()
        self.name = f"hf:{data.name}"
        self._data, self._limits = data, limits
        try:
            builder = datasets.load_dataset_builder(data.name, data.config, revision=data.revision)
            self._rows: Any = builder.as_streaming_dataset(split=data.split).with_format("arrow")
        except Exception as fault:
            # The library raises its own, the hub's and pyarrow's errors; each means that there is no such data.
            raise unusable(data.name, fault) from fault
        self._images = NamedImages(data.name, files_of(builder, data.split), limits)
        self.shards = int(self._rows.num_shards)
        self._fingerprint = _fingerprint(data, builder.config.data_files or {}, self.shards)
        self._held: dict[int, Row] = {}
        self._counts: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # For another process, which reads shards of its own.
        return self.__dict__ | {"_held": {}}

    @cached_property
    def head(self) -> Source:
        numbers = probed_positions(self.shards, _HEAD)
        rows = {place: row for shard in numbers for place, row in itertools.islice(self._read(shard), _HEAD_ROWS)}
        label = (self._rows.features or {}).get("label")
        head = _Head(self, rows, tuple(getattr(label, "names", ())) or None)
        read = f"its split `{self._data.split}` is read as a stream of {self.shards:,} shards"
        covered = f"remarks on the samples cover the first {len(rows):,} rows of {len(numbers)} of them"
        head.remarks = [f"{self.name}: {read}; {covered}"]
        return head

    @property
    def keys(self) -> _KeysOfRows:
        return _KeysOfRows(self)

    def key(self, place: int) -> str:
        """The key of the row at a place."""
        shard, row = divmod(place, _OF_SHARD)
        return f"{self._data.name}:{self._data.split}:{shard}/{row + 1}"

    def folder_of(self, index: int) -> str | None:
        return self._images.folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        if index not in self._held:
            raise BadSample("row of a stream that has passed")
        return self.columns_of(self._held[index])

    def columns_of(self, row: Row) -> Mapping[str, object]:
        """The values of a row, read on access."""
        return LazyColumns({}, {name: partial(self._value, row, name) for name in row[0].column_names})

    def _value(self, row: Row, name: str) -> object:
        table, number = row
        return value_of(lambda: table.column(name)[number], self._limits, self._images)

    def places(self, shard: int, start: int = 0) -> Iterator[int]:
        for place, row in self._read(shard, start):
            self._held[place] = row
            yield place

    def forget(self, places: Iterable[int]) -> None:
        for place in places:
            self._held.pop(place, None)

    def count(self, shard: int) -> int:
        if shard not in self._counts:
            remembered = self._remembered(shard)
            if remembered is None:
                for _ in self._read(shard):
                    pass
            else:
                self._counts[shard] = remembered
        return self._counts[shard]

    def fingerprint(self) -> str:
        return self._fingerprint

    def _read(self, shard: int, start: int = 0) -> Iterator[tuple[int, Row]]:
        """The rows of a shard from `start` on, each with its place; at its end it is known how many there are."""
        row = start
        try:
            _after_fork()
            own = self._rows.shard(num_shards=self.shards, index=shard)
            # `iter`: the library would share the rows of a loop over `own` out among the worker processes by itself.
            for table in (own.skip(start) if start else own).iter(batch_size=_AT_ONCE):
                for number in range(table.num_rows):
                    yield shard * _OF_SHARD + row, (table, number)
                    row += 1
        except Exception as fault:
            raise unusable(self._data.name, fault, _WHILE_READING) from fault
        if shard not in self._counts and (row > start or not start):
            self._counts[shard] = row
            with suppress(OSError, DiagnosticError):  # without a cache it is counted again
                self._memory.mkdir(parents=True, exist_ok=True)
                write_atomically(self._memory / str(shard), str(row))

    @property
    def _memory(self) -> Path:
        """A folder with a file per shard that has been read whole, in this run or an earlier one, with its length."""
        return cache_folder(self._limits) / "rows" / self._fingerprint[:24]

    def _remembered(self, shard: int) -> int | None:
        with suppress(BadFile, OSError, ValueError):
            return int(read_regular(self._memory / str(shard), _LONGEST_NUMBER))
        return None


class _KeysOfRows:
    """The keys of the rows of a stream, by their places."""

    def __init__(self, stream: NamedDataStream) -> None:
        self._stream = stream

    def __getitem__(self, place: int, /) -> str:
        return self._stream.key(place)


class _Head(RowSource):
    """The first rows of some shards, held in memory."""

    def __init__(self, stream: NamedDataStream, rows: Mapping[int, Row], class_names: tuple[str, ...] | None) -> None:
        super().__init__(stream.name, stream.folder_of(0))
        self._places, self._rows = list(rows), list(rows.values())
        self._stream_key, self._columns_of = stream.key, stream.columns_of
        self.class_names = class_names
        self.columns = tuple(sorted({name for table, _ in self._rows for name in table.column_names}))

    def __len__(self) -> int:
        return len(self._rows)

    def _key(self, index: int) -> str:
        return self._stream_key(self._places[index])

    def _row(self, index: int) -> Mapping[str, object]:
        return self._columns_of(self._rows[index])


def _fingerprint(data: NamedData, files: Mapping[Any, Any], shards: int) -> str:
    """SHA-256 of what tells versions of a data set apart: the commit of the hub that its files are of, or their names and
    times on this machine."""
    facts: list[object] = [data.config, data.split, shards]
    for split, own in files.items():
        origins = getattr(own, "origin_metadata", [])
        facts += [str(split), [str(file).rpartition("/")[2] for file in own], [list(map(str, origin)) for origin in origins]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _after_fork() -> None:
    """Files at a URL are read by a thread that a worker process does not have; its lock is made new."""
    import fsspec.asyn

    fsspec.asyn.reset_lock()
