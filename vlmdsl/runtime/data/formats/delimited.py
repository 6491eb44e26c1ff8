"""CSV and TSV: tables between commas, tabs or other separators, with a column of image paths."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from vlmdsl.runtime.data.files import IndexedFile
from vlmdsl.runtime.data.formats.records import (
    BYTE_ORDER,
    MOST_COLUMNS,
    Records,
    content_of,
    text_begin,
    unreadable_table,
)
from vlmdsl.runtime.data.formats.rows import DataPath, RowSource
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.left_out import shortened
from vlmdsl.runtime.data.limits import LONGEST_DESCRIPTION
from vlmdsl.runtime.data.source import BadSample

__all__ = ["DelimitedSource"]

_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_NO_NAME = re.compile(rf".*\.(?:{'|'.join(IMAGE_SUFFIXES)})|https?://.*", re.IGNORECASE | re.DOTALL)
"""What names no column: the path of an image, an address."""

Quoting = Literal[0, 3]
"""`csv.QUOTE_MINIMAL` or `csv.QUOTE_NONE`."""


class DelimitedSource(RowSource):
    """A `.csv` or `.tsv` file whose first line names the columns; all values are text. Image paths are relative to it."""

    def __init__(self, data: DataPath) -> None:
        super().__init__(data.name, data.folder)
        self._stem = data.stem
        content, file = content_of(data.path, data.limits)
        _check_encoding(data.path, content)
        self._separator = self._likely_separator(data.path, content)
        self.columns, self._quoting, self._rows = _rows(data.path, content, file, self._separator)

    def __len__(self) -> int:
        return len(self._rows)

    def _key(self, index: int) -> str:
        return f"{self._stem}:{self._rows.number(index)}"

    def _row(self, index: int) -> Mapping[str, object]:
        ((_, _, row),) = _records(self._rows[index], self._separator, self._quoting)
        if len(row) > len(self.columns):
            raise BadSample("more cells than columns")
        return dict(zip(self.columns, row, strict=False))

    def _likely_separator(self, path: Path, data: bytes) -> str:
        """The separator of cells: that of the file name's ending, if the first line contains it."""
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        header = data.removeprefix(BYTE_ORDER).lstrip(b"\r\n").partition(b"\n")[0]
        counts = {separator: header.count(separator.encode()) for separator in _SEPARATORS}
        likely = max(counts, key=lambda separator: counts[separator])
        if counts[usual] or not counts[likely]:
            return usual
        self.remarks.append(f"{path.name}: its cells seem to be separated by {_SEPARATORS[likely]}")
        return likely


def _check_encoding(path: Path, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        reason = f"line {line} is not UTF-8 (byte {data[fault.start]:#04x})"
        help = "save it in UTF-8; if it is in Latin-1, `iconv -f LATIN1 -t UTF-8` converts it"
        raise unreadable_table(path, reason, help) from fault


def _rows(path: Path, data: bytes, file: IndexedFile, separator: str) -> tuple[tuple[str, ...], Quoting, Records]:
    """The header, how cells are quoted, and the rows that are not empty."""
    try:
        return _indexed(path, data, file, separator, csv.QUOTE_MINIMAL)
    except _Quote as fault:
        # Tables between tabs often have quotes that are part of the text, and no cell with a tab.
        plain = _records(data, separator, csv.QUOTE_NONE, text_begin(data)) if separator == "\t" else ()
        if len({len(cells) for *_, cells in plain}) != 1:
            help = 'a cell in quotes ends with a quote; write a quote inside it twice (`""`)'
            reason = f"the row in line {fault.line} has a quote that is not closed, or text after a closing one ({fault})"
            raise unreadable_table(path, reason, help) from fault
    return _indexed(path, data, file, separator, csv.QUOTE_NONE)


def _indexed(
    path: Path, data: bytes, file: IndexedFile, separator: str, quoting: Quoting
) -> tuple[tuple[str, ...], Quoting, Records]:
    records = _records(data, separator, quoting, text_begin(data))
    _, _, first = next(records, (0, 0, []))
    starts, lines = array("Q"), array("Q")
    for line, start, _ in records:
        starts.append(start)
        lines.append(line)
    starts.append(len(data))
    header = tuple(cell.strip() for cell in first)
    if not any(header):
        raise unreadable_table(path, "its first line names no columns")
    _check_header(path, header)
    return header, quoting, Records(file, starts, lines)


class _Quote(Exception):  # noqa: N818 - where a table cannot be split into cells
    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        super().__init__(reason)


def _records(data: bytes, separator: str, quoting: Quoting, begin: int = 0) -> Iterator[tuple[int, int, list[str]]]:
    """The rows from the byte `begin` on that are not empty, each with the line and the byte that it begins at."""
    before = csv.field_size_limit(LONGEST_DESCRIPTION)
    lines = _Lines(data, begin)
    line, start = 1, lines.end
    try:
        # `strict`: otherwise a quote that is never closed swallows the rest of the table.
        reader = csv.reader(lines, delimiter=separator, strict=True, quoting=quoting)
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield line, start, cells
            line, start = reader.line_num + 1, lines.end
    except csv.Error as fault:
        raise _Quote(line, str(fault)) from fault
    finally:
        csv.field_size_limit(before)


class _Lines:
    """The lines of a text in UTF-8, and where the last one ends in bytes."""

    def __init__(self, data: bytes, begin: int) -> None:
        content = io.BytesIO(data)
        self.end = content.seek(begin)
        self._lines = io.TextIOWrapper(content, encoding="utf-8", newline="")

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.end += len(line) if line.isascii() else len(line.encode())
            yield line


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    """`DiagnosticError` for a first line that is a sample, and for columns of one name."""
    if len(header) > MOST_COLUMNS:
        raise unreadable_table(path, f"it has {len(header):,} columns, more than {MOST_COLUMNS:,}")
    datum = next((cell for cell in header if _NO_NAME.fullmatch(cell)), None)
    if datum is not None:
        help = "put a line with the names of the columns before it, such as `image,text`"
        raise unreadable_table(path, f"its first line names no columns but is a sample: `{shortened(datum)}`", help)
    twice = next((name for name in header if header.count(name) > 1 and name), None)
    if twice is not None:
        raise unreadable_table(path, f"it has two columns `{shortened(twice)}`", "give each column a unique name")
