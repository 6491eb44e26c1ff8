"""Tables with a column of image paths: CSV, TSV, JSON lines and JSON arrays."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import TableUnreadable
from vlmdsl.runtime.data.files import IndexedFile, well_formed
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.keys import Keys, smallest_unsigned
from vlmdsl.runtime.data.left_out import shortened
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, LONGEST_DESCRIPTION, Limits
from vlmdsl.runtime.data.members import read_json
from vlmdsl.runtime.data.source import BadSample, probed_columns
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["JsonSource", "TableSource"]

_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_NO_NAME = re.compile(rf".*\.(?:{'|'.join(IMAGE_SUFFIXES)})|https?://.*", re.IGNORECASE | re.DOTALL)
"""What names no column: the path of an image, an address."""

_OTHER_FORMS = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it first, with `gunzip`",
    b"PK\x03\x04": "it is a zip archive or an Excel file; save it as CSV in UTF-8",
    b"PAR1": "it is a Parquet file; convert it to a `.csv` or `.jsonl` table",
    b"\xff\xfe": "it is in UTF-16; save it in UTF-8, as with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "it is in UTF-16; save it in UTF-8, as with `iconv -f UTF-16 -t UTF-8`",
}
_BYTE_ORDER = b"\xef\xbb\xbf"
_MOST_COLUMNS = 10_000
_MOST_VALUES = 10_000_000
"""Values of a JSON array, which is parsed as a whole: each takes a hundred bytes."""


Quoting = Literal[0, 3]
"""`csv.QUOTE_MINIMAL` or `csv.QUOTE_NONE`."""


class _Records:
    """The records of a file, in 8 bytes each (16 beyond 4 GiB): where each begins and where the last ends [records + 1], and
    the number that stands in its key [records]. They are read from the file."""

    def __init__(self, file: IndexedFile, starts: array[int], numbers: array[int]) -> None:
        self._file = file
        self._starts = np.asarray(starts, dtype=smallest_unsigned(file.stamp[0]))
        self._numbers = np.asarray(numbers, dtype=smallest_unsigned(file.stamp[0]))

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, index: int) -> int:
        return int(self._numbers[index])

    def __getitem__(self, index: int) -> bytes:
        """A record and what stands between it and the next one; raises `BadSample`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._starts[index : index + 2].tolist()
        return self._file.read(start, end - start, sys.maxsize)


class TableSource:
    """A `.csv` or `.tsv` file whose first line names the columns; all values are text. Image paths are relative to it.

    `prefix` stands before every key.
    """

    def __init__(self, path: Path, name: str = "", limits: Limits = DEFAULT_LIMITS, prefix: str = "") -> None:
        self.name = name or str(path)
        self.remarks: list[str] = []
        self.class_names: tuple[str, ...] | None = None
        self._folder = str(path.parent)
        self._stem = prefix + well_formed(path.stem)
        data, file = _content(path, limits)
        _check_encoding(path, data)
        self._separator = self._likely_separator(path, data)
        self.columns, self._quoting, self._rows = _rows(path, data, file, self._separator)

    @property
    def keys(self) -> Keys:
        return Keys(len(self), lambda index: f"{self._stem}:{self._rows.number(index)}")

    def __len__(self) -> int:
        return len(self._rows)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        ((_, _, row),) = _records(self._rows[index], self._separator, self._quoting)
        if len(row) > len(self.columns):
            raise BadSample("more cells than columns")
        return dict(zip(self.columns, row, strict=False))

    def _likely_separator(self, path: Path, data: bytes) -> str:
        """The separator of cells: that of the file name's ending, if the first line contains it."""
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        header = data.removeprefix(_BYTE_ORDER).lstrip(b"\r\n").partition(b"\n")[0]
        counts = {separator: header.count(separator.encode()) for separator in _SEPARATORS}
        likely = max(counts, key=lambda separator: counts[separator])
        if counts[usual] or not counts[likely]:
            return usual
        self.remarks.append(f"{path.name}: its cells seem to be separated by {_SEPARATORS[likely]}")
        return likely


def _begin(data: bytes) -> int:
    """The offset of the text of a file: after its byte order mark, if it has one."""
    return len(_BYTE_ORDER) if data.startswith(_BYTE_ORDER) else 0


def _check_encoding(path: Path, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        reason = f"line {line} is not UTF-8 (byte {data[fault.start]:#04x})"
        help = "save it in UTF-8; if it is in Latin-1, `iconv -f LATIN1 -t UTF-8` converts it"
        raise _unreadable(path, reason, help) from fault


def _content(path: Path, limits: Limits) -> tuple[bytes, IndexedFile]:
    """The content of a table, and the file to read its rows from later."""
    try:
        data = read_regular(path, limits.table_bytes)
        status = path.stat()
    except BadFile as fault:
        help = f"`--set data.max_table_bytes={path.stat().st_size}` reads it" if fault.reason == "file too large" else ""
        raise _unreadable(path, fault.reason, help) from fault
    except OSError as fault:
        raise _unreadable(path, "it was removed while it was read") from fault
    for mark, reason in _OTHER_FORMS.items():
        if data.startswith(mark):
            raise _unreadable(path, reason)
    if status.st_size != len(data):
        raise _unreadable(path, "it changes while it is read")
    return data, IndexedFile.of(path, status, "table")


def _rows(path: Path, data: bytes, file: IndexedFile, separator: str) -> tuple[tuple[str, ...], Quoting, _Records]:
    """The header, how cells are quoted, and the rows that are not empty."""
    try:
        return _indexed(path, data, file, separator, csv.QUOTE_MINIMAL)
    except _Quote as fault:
        # Tables between tabs often have quotes that are part of the text, and no cell with a tab.
        plain = _records(data, separator, csv.QUOTE_NONE, _begin(data)) if separator == "\t" else ()
        if len({len(cells) for *_, cells in plain}) != 1:
            help = 'a cell in quotes ends with a quote; write a quote inside it twice (`""`)'
            reason = f"the row in line {fault.line} has a quote that is not closed, or text after a closing one ({fault})"
            raise _unreadable(path, reason, help) from fault
    return _indexed(path, data, file, separator, csv.QUOTE_NONE)


def _indexed(
    path: Path, data: bytes, file: IndexedFile, separator: str, quoting: Quoting
) -> tuple[tuple[str, ...], Quoting, _Records]:
    records = _records(data, separator, quoting, _begin(data))
    _, _, first = next(records, (0, 0, []))
    starts, lines = array("Q"), array("Q")
    for line, start, _ in records:
        starts.append(start)
        lines.append(line)
    starts.append(len(data))
    header = tuple(cell.strip() for cell in first)
    if not any(header):
        raise _unreadable(path, "its first line names no columns")
    _check_header(path, header)
    return header, quoting, _Records(file, starts, lines)


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
    if len(header) > _MOST_COLUMNS:
        raise _unreadable(path, f"it has {len(header):,} columns, more than {_MOST_COLUMNS:,}")
    datum = next((cell for cell in header if _NO_NAME.fullmatch(cell)), None)
    if datum is not None:
        help = "put a line with the names of the columns before it, such as `image,text`"
        raise _unreadable(path, f"its first line names no columns but is a sample: `{shortened(datum)}`", help)
    twice = next((name for name in header if header.count(name) > 1 and name), None)
    if twice is not None:
        raise _unreadable(path, f"it has two columns `{shortened(twice)}`", "give each column a unique name")


class JsonSource:
    """A `.jsonl` file of one JSON object per line, or a `.json` file of one array of objects. Paths are relative to it.

    `prefix` stands before every key.
    """

    def __init__(self, path: Path, name: str = "", limits: Limits = DEFAULT_LIMITS, prefix: str = "") -> None:
        self.name = name or str(path)
        self.remarks: list[str] = []
        self.class_names: tuple[str, ...] | None = None
        self._folder = str(path.parent)
        self._stem = prefix + well_formed(path.stem)
        data, file = _content(path, limits)
        starts, numbers = array("Q"), array("Q")
        if _is_array(path, data.removeprefix(_BYTE_ORDER)):
            places = array("Q", itertools.chain.from_iterable(_elements(path, data)))
            starts = places[0::2] + (places[-1:] or array("Q", [0]))
            numbers = array("Q", range(1, len(starts)))
        else:
            for number, start, _ in _filled_lines(data):
                starts.append(start)
                numbers.append(number)
            _check_lines(path, [line for _, _, line in itertools.islice(_filled_lines(data), 2)])
            starts.append(len(data))
        self._texts = _Records(file, starts, numbers)
        self.columns: tuple[str, ...] = probed_columns(self)

    @property
    def keys(self) -> Keys:
        return Keys(len(self), lambda index: f"{self._stem}:{self._texts.number(index)}")

    def __len__(self) -> int:
        return len(self._texts)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        # What stands between two elements of an array is part of the first one's record.
        value = read_json(self._texts[index].strip().removesuffix(b",").rstrip())
        if not isinstance(value, dict):
            raise BadSample("line is not a json object")
        return value


def _filled_lines(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The lines that are not empty: their number, where they begin, and their text."""
    start = _begin(data)
    # Not `splitlines`: JSON strings may hold other characters that it takes for the end of a line.
    for number in itertools.count(1):
        end = data.find(b"\n", start)
        line = data[start : len(data) if end < 0 else end]
        if line.strip():
            yield number, start, line
        if end < 0:
            return
        start = end + 1


def _is_array(path: Path, data: bytes) -> bool:
    """Whether a file holds one array, and not lines of which the first is one."""
    if data.lstrip()[:1] != b"[":
        return False
    first, _, rest = data.lstrip().partition(b"\n")
    if path.suffix.lower() == ".json" or not rest.strip():
        return True
    try:
        json.loads(first[:LONGEST_DESCRIPTION])
    except (ValueError, RecursionError):
        return True
    return False


def _elements(path: Path, data: bytes) -> Iterator[tuple[int, int]]:
    """Where the elements of a JSON array begin and end, in bytes."""
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise _unreadable(path, "it is too large for one JSON array", "write one object per line, to a `.jsonl` file")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        decoder = json.JSONDecoder()
        blank = re.compile(r"[ \t\r\n]*")
        after, passed = 0, len(data) - len(text.encode())
        end = _skip(blank, text, _skip(blank, text, 0) + 1)
        while text[end : end + 1] != "]":
            start = end
            _, end = decoder.raw_decode(text, start)
            first = passed + len(text[after:start].encode())
            after, passed = end, first + len(text[start:end].encode())
            yield first, passed
            end = _skip(blank, text, end)
            if text[end : end + 1] == ",":
                end = _skip(blank, text, end + 1)
            elif text[end : end + 1] != "]":
                raise ValueError(f"no comma between elements: character {end}")
        if text[end + 1 :].strip():
            raise ValueError(f"more follows the array: character {end + 1}")
    except (ValueError, RecursionError) as fault:
        raise _unreadable(path, f"it is a damaged JSON array ({fault})") from fault


def _skip(blank: re.Pattern[str], text: str, position: int) -> int:
    match = blank.match(text, position)
    return position if match is None else match.end()


def _check_lines(path: Path, lines: list[bytes]) -> None:
    """`DiagnosticError` for a `.json` file of one object, in one line or several."""
    if path.suffix.lower() != ".json":
        return
    try:
        single = len(lines) < 2 or not isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        single = True
    if single:
        help = 'write an array of objects, one per sample: `[{"image": "a.png", "text": "a cat"}, ...]`'
        raise _unreadable(path, "it is not an array of objects", help)


def _unreadable(path: Path, reason: str, *help: str) -> DiagnosticError:
    hints = tuple(filter(None, help))
    return DiagnosticError((TableUnreadable.at(Span("<command line>", 0, 0), path=path, reason=reason, help=hints),))
