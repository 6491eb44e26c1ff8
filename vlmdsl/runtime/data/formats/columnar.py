"""Parquet and Arrow files (the extra `arrow`): tables with images or their paths in a column."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from typing import Any

from vlmdsl.runtime.data.files import IndexedFile, well_formed
from vlmdsl.runtime.data.formats.columns import class_names_in, load_pyarrow, value_of
from vlmdsl.runtime.data.formats.records import MOST_COLUMNS, unreadable_table
from vlmdsl.runtime.data.formats.rows import DataPath, RowSource
from vlmdsl.runtime.data.source import BadSample, LazyColumns
from vlmdsl.source.regular_files import BadFile, open_regular

__all__ = ["ArrowSource", "ColumnarSource", "ParquetSource"]

_KEPT_BYTES = 256 * 2**20
"""Bytes of columns of row groups that a process keeps, as they were read last."""


_FEWEST_KEPT = 4


class ColumnarSource(RowSource):
    """The rows of a file that stores them by column, in groups; subclasses read a column of a group.

    Paths are relative to the file or to `images`. Columns are read on access. What a process has opened is not passed on to
    another one.
    """

    what = "Parquet files"

    def __init__(self, data: DataPath, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._arrow = load_pyarrow(f"reading {self.what}")
        super().__init__(data.name, data.folder)
        self._path, self._limits, self._stem = data.path, data.limits, data.stem
        self._kept_bytes = kept_bytes
        self._opened: Any = None
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        try:
            with open_regular(data.path) as file:
                self._file = IndexedFile.of(data.path, os.fstat(file.fileno()), "table")
            schema, lengths = self._described()
        except BadFile as fault:
            raise unreadable_table(data.path, fault.reason) from fault
        except (BadSample, OSError, ValueError, KeyError, self._arrow.ArrowException) as fault:
            raise unreadable_table(data.path, f"it is not a sound file of this format ({fault})") from fault
        self._first = [0, *accumulate(lengths)]
        names = [str(name) for name in schema.names]
        if len(names) > MOST_COLUMNS or len(set(names)) < len(names):
            raise unreadable_table(data.path, f"it has {len(names):,} columns, too many or some with one name")
        self.columns = tuple(sorted(names))
        self.class_names = class_names_in(schema.metadata)

    def __getstate__(self) -> dict[str, Any]:
        # For another process, which opens the file again.
        return self.__dict__ | {"_arrow": None, "_opened": None, "_kept": OrderedDict()}

    def __len__(self) -> int:
        return self._first[-1]

    def _key(self, index: int) -> str:
        return f"{self._stem}:{index + 1}"

    def _row(self, index: int) -> Mapping[str, object]:
        group = bisect_right(self._first, index) - 1
        row = index - self._first[group]
        return LazyColumns({}, {name: partial(self._value, group, row, name) for name in self.columns})

    def _value(self, group: int, row: int, name: str) -> object:
        return value_of(lambda: self._column(group, name)[row], self._limits)

    def _column(self, group: int, name: str) -> Any:
        """A column of a group of rows, of those that were read last or from the file."""
        place = (group, name)
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        self._file.opened().close()  # the file is the one that it was
        if self._arrow is None:
            self._arrow = load_pyarrow(f"reading {self.what}")
        column = self._kept[place] = self._read(group, name)
        # What a window of a stream spans is kept however large it is: it would be read again for each of its samples.
        while len(self._kept) > _FEWEST_KEPT and sum(self._weight(one) for one in self._kept.values()) > self._kept_bytes:
            self._kept.popitem(last=False)
        return column

    def _weight(self, column: Any) -> int:
        return int(column.nbytes)

    def _described(self) -> tuple[Any, list[int]]:
        """The schema, and how many rows each group has."""
        raise NotImplementedError

    def _read(self, group: int, name: str) -> Any:
        """A column of a group."""
        raise NotImplementedError


class ParquetSource(ColumnarSource):
    """The rows of a Parquet file. To read one, the column of its row group is read: data whose images are in large row
    groups is read faster as a stream, or as shards, which `remarks` say."""

    def _described(self) -> tuple[Any, list[int]]:
        metadata = self._parquet().metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        largest = max((group.total_byte_size for group in groups), default=0)
        if largest > self._limits.table_bytes:
            reason = f"it has a row group of {largest:,} bytes"
            raise unreadable_table(self._path, reason, f"`--set data.max_table_bytes={largest}` reads it")
        if sum(group.total_byte_size for group in groups) > _KEPT_BYTES and len(groups) > 1:
            self.remarks.append(
                f"{well_formed(self._path.name)}: row groups of {largest / 2**20:.0f} MiB are read for single samples, "
                "which is slow in random order; use `--set data.stream=true`, or write shards with `vlmdsl data convert`"
            )
        return self._parquet().schema_arrow, [group.num_rows for group in groups]

    def _parquet(self) -> Any:
        if self._opened is None:
            from pyarrow import parquet

            self._opened = parquet.ParquetFile(self._path)
        return self._opened

    def _read(self, group: int, name: str) -> Any:
        return self._parquet().read_row_group(group, columns=[name], use_threads=False).column(name)


class ArrowSource(ColumnarSource):
    """The rows of an Arrow file, or of a stream of Arrow in a file, as the library `datasets` saves them; mapped into
    memory, not read into it."""

    what = "Arrow files"

    def _described(self) -> tuple[Any, list[int]]:
        table = self._table()
        return table[0], [batch.num_rows for batch in table[1]]

    def _table(self) -> Any:
        if self._opened is None:
            mapped = self._arrow.memory_map(str(self._path))
            with open_regular(self._path) as file:
                in_blocks = file.read(6) == b"ARROW1"
            if in_blocks:
                reader = self._arrow.ipc.open_file(mapped)
                self._opened = reader.schema, [reader.get_batch(number) for number in range(reader.num_record_batches)]
            else:
                reader = self._arrow.ipc.open_stream(mapped)
                self._opened = reader.schema, list(reader)
        return self._opened

    def _read(self, group: int, name: str) -> Any:
        column = self._table()[1][group].column(name)
        column.validate(full=True)  # offsets that lead out of the file would end the process
        return column

    def _weight(self, column: Any) -> int:
        return 0  # it is the file's own memory
