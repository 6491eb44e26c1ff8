"""Tables with a column of image paths: CSV, TSV, JSON lines and JSON arrays."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import TableUnreadable
from vlmdsl.runtime.data.files import well_formed
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
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
    b"PAR1": "it is a Parquet file; turn it into a `.csv` or `.jsonl` table",
    b"\xff\xfe": "it is in UTF-16; save it in UTF-8, as with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "it is in UTF-16; save it in UTF-8, as with `iconv -f UTF-16 -t UTF-8`",
}
_MOST_COLUMNS = 10_000
_MOST_VALUES = 10_000_000
"""Values of a JSON array, which is parsed as a whole: each takes a hundred bytes."""


class TableSource:
    """A `.csv` or `.tsv` file whose first line names the columns; all values are text. Image paths are relative to it."""

    def __init__(self, path: Path, name: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name or str(path)
        self.remarks: list[str] = []
        self.class_names: tuple[str, ...] | None = None
        self._folder = str(path.parent)
        text = _text(path, limits)
        separator = self._separator(path, text)
        self.columns, numbered = _rows(path, text, separator)
        self._rows = [row for _, row in numbered]
        self.keys = [f"{well_formed(path.stem)}:{line}" for line, _ in numbered]

    def __len__(self) -> int:
        return len(self._rows)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        row = self._rows[index]
        if len(row) > len(self.columns):
            raise BadSample("more cells than columns")
        return dict(zip(self.columns, row, strict=False))

    def _separator(self, path: Path, text: str) -> str:
        """What stands between the cells: what the ending says, if the first line has any of it."""
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        header = text.lstrip("\r\n").partition("\n")[0]
        counts = {separator: header.count(separator) for separator in _SEPARATORS}
        likely = max(counts, key=lambda separator: counts[separator])
        if counts[usual] or not counts[likely]:
            return usual
        self.remarks.append(f"{path.name}: its cells are taken to stand between {_SEPARATORS[likely]}")
        return likely


def _text(path: Path, limits: Limits) -> str:
    data = _content(path, limits)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        reason = f"line {line} is not UTF-8 (byte {data[fault.start]:#04x})"
        help = "save it in UTF-8; if it is in Latin-1, `iconv -f LATIN1 -t UTF-8` converts it"
        raise _unreadable(path, reason, help) from fault


def _content(path: Path, limits: Limits) -> bytes:
    try:
        data = read_regular(path, limits.table_bytes)
    except BadFile as fault:
        help = f"`--set data.max_table_bytes={path.stat().st_size}` reads it" if fault.reason == "file too large" else ""
        raise _unreadable(path, fault.reason, help) from fault
    for mark, reason in _OTHER_FORMS.items():
        if data.startswith(mark):
            raise _unreadable(path, reason)
    return data


def _rows(path: Path, text: str, separator: str) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """The header, and the rows that are not empty with the lines they begin in."""
    try:
        records = list(_records(text, separator, quoting=csv.QUOTE_MINIMAL))
    except _Quote as fault:
        # Tables between tabs often have quotes that are part of the text, and no cell with a tab.
        plain = list(_records(text, separator, quoting=csv.QUOTE_NONE)) if separator == "\t" else []
        if not plain or any(len(cells) != len(plain[0][1]) for _, cells in plain):
            help = 'a cell in quotes ends with a quote; write a quote inside it twice (`""`)'
            reason = f"the row in line {fault.line} has a quote that is not closed, or text behind one that is ({fault})"
            raise _unreadable(path, reason, help) from fault
        records = plain
    header = tuple(cell.strip() for cell in records[0][1]) if records else ()
    if not any(header):
        raise _unreadable(path, "its first line names no columns")
    _check_header(path, header)
    return header, records[1:]


class _Quote(Exception):  # noqa: N818 - where a table cannot be split into cells
    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        super().__init__(reason)


def _records(text: str, separator: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line that it begins in."""
    before = csv.field_size_limit(LONGEST_DESCRIPTION)
    line = 1
    try:
        # `strict`: otherwise a quote that is never closed swallows the rest of the table.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, quoting=quoting)
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as fault:
        raise _Quote(line, str(fault)) from fault
    finally:
        csv.field_size_limit(before)


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
        raise _unreadable(path, f"it has two columns `{shortened(twice)}`", "give each column a name of its own")


class JsonSource:
    """A `.jsonl` file of one JSON object a line, or a `.json` file of one array of objects. Paths are relative to it."""

    def __init__(self, path: Path, name: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name or str(path)
        self.remarks: list[str] = []
        self.class_names: tuple[str, ...] | None = None
        self._folder = str(path.parent)
        data = _content(path, limits).removeprefix(b"\xef\xbb\xbf")
        stem = well_formed(path.stem)
        self._texts: list[bytes | str]
        if _is_array(path, data):
            self._texts = list(_elements(path, data))
            self.keys = [f"{stem}:{number}" for number in range(1, len(self._texts) + 1)]
        else:
            # Not `splitlines`: JSON strings may hold other characters that it takes for the end of a line.
            lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
            _check_lines(path, [line for _, line in lines[:2]])
            self._texts = [line for _, line in lines]
            self.keys = [f"{stem}:{number}" for number, _ in lines]
        self.columns: tuple[str, ...] = probed_columns(self)

    def __len__(self) -> int:
        return len(self._texts)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        value = read_json(self._texts[index])
        if not isinstance(value, dict):
            raise BadSample("line is no json object")
        return value


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


def _elements(path: Path, data: bytes) -> Iterator[str]:
    """The texts of the elements of a JSON array."""
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise _unreadable(path, "it is too large for one JSON array", "write one object a line, into a `.jsonl` file")
    try:
        text = data.decode("utf-8")
        decoder = json.JSONDecoder()
        blank = re.compile(r"[ \t\r\n]*")
        end = _skip(blank, text, _skip(blank, text, 0) + 1)
        while text[end : end + 1] != "]":
            start = end
            _, end = decoder.raw_decode(text, start)
            yield text[start:end]
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
    found = blank.match(text, position)
    return position if found is None else found.end()


def _check_lines(path: Path, lines: list[bytes]) -> None:
    """`DiagnosticError` for a `.json` file of one object, in one line or several."""
    if path.suffix.lower() != ".json":
        return
    try:
        single = len(lines) < 2 or not isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        single = True
    if single:
        help = 'write an array of objects, one a sample: `[{"image": "a.png", "text": "a cat"}, ...]`'
        raise _unreadable(path, "it is no array of objects", help)


def _unreadable(path: Path, reason: str, *help: str) -> DiagnosticError:
    hints = tuple(filter(None, help))
    return DiagnosticError((TableUnreadable.at(Span("<command line>", 0, 0), path=path, reason=reason, help=hints),))
