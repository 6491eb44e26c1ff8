"""Parquet and Arrow files that are read from front to back, several side by side."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from vlmdsl.runtime.data.formats.columnar import ArrowSource, ColumnarSource, ParquetSource
from vlmdsl.runtime.data.formats.rows import DataPath
from vlmdsl.runtime.data.keys import Keys
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.source import JoinedSource, Source, probed_positions

__all__ = ["COLUMNAR", "ColumnarStream"]

COLUMNAR: dict[str, type[ColumnarSource]] = {".parquet": ParquetSource, ".arrow": ArrowSource, ".feather": ArrowSource}
"""Endings of files whose rows can be read as a stream -> their source."""

_OF_FILE = 2**40
"""Places in one file, in rows."""

_OPENED, _KEPT_BYTES = 32, 2**26
"""The number of files that are open, and bytes of row groups of each that are kept."""

_HEAD = 4
"""The number of files that are opened before the first step."""


class ColumnarStream:
    """The rows of Parquet or Arrow files, each of which is one shard of the stream.

    A file is opened when it is reached; rows that follow one another are in the same row group, which is read once for all
    of them. Of at most 32 files row groups are held.
    """

    read_once = False

    def __init__(self, paths: Sequence[Path], name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name
        self._paths, self._limits = list(paths), limits
        self._sources: OrderedDict[int, ColumnarSource] = OrderedDict()
        self._counts: dict[int, int] = {}

    @property
    def shards(self) -> int:
        return len(self._paths)

    @cached_property
    def head(self) -> Source:
        numbers = probed_positions(self.shards, _HEAD)
        head = JoinedSource([self._source(number) for number in numbers], self.name)
        head.remarks = [f"read as a stream of {self.shards:,} files; remarks on the samples cover {len(numbers)} of them"]
        return head

    @property
    def keys(self) -> Keys:
        return Keys(self.shards * _OF_FILE, self._key)

    def folder_of(self, index: int) -> str | None:
        return str(self._paths[index // _OF_FILE].parent)

    def __getitem__(self, index: int) -> Mapping[str, object]:
        number, row = divmod(index, _OF_FILE)
        return self._source(number)[row]

    def places(self, shard: int, start: int = 0) -> Iterator[int]:
        return iter(range(shard * _OF_FILE + start, shard * _OF_FILE + self.count(shard)))

    def forget(self, places: Iterable[int]) -> None:
        """Row groups are held by how lately they were read."""

    def count(self, shard: int) -> int:
        if shard not in self._counts:
            self._counts[shard] = len(self._source(shard))
        return self._counts[shard]

    def fingerprint(self) -> str:
        names = "".join(f"{path.name}\0{os.stat(path).st_size}\0" for path in self._paths)
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def _key(self, place: int) -> str:
        number, row = divmod(place, _OF_FILE)
        return self._source(number).keys[row]

    def _source(self, number: int) -> ColumnarSource:
        if number not in self._sources:
            path = self._paths[number]
            self._sources[number] = COLUMNAR[path.suffix.lower()](DataPath(path, self._limits), kept_bytes=_KEPT_BYTES)
            while len(self._sources) > _OPENED:
                self._sources.popitem(last=False)
        self._sources.move_to_end(number)
        return self._sources[number]
