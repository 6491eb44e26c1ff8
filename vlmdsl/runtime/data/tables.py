"""Tables with a column of image paths: CSV, TSV and JSON lines."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import TableUnreadable
from vlmdsl.runtime.data.source import BadSample, probed_columns
from vlmdsl.source import Span

__all__ = ["JsonLinesSource", "TableSource"]


class TableSource:
    """A `.csv` or `.tsv` file whose first line names the columns; all values are text. Image paths are relative to it."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or str(path)
        self._folder = str(path.parent)
        self.class_names: tuple[str, ...] | None = None
        self.columns, self._rows = _rows(path)
        self.keys = [f"{path.stem}:{line}" for line in range(2, 2 + len(self._rows))]

    def __len__(self) -> int:
        return len(self._rows)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        row = self._rows[index]
        if len(row) > len(self.columns):
            raise BadSample("more cells than columns")
        return dict(zip(self.columns, row, strict=False))


def _rows(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """The header and the rows that are not empty."""
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = tuple(cell.strip() for cell in next(reader, ()))
            rows = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise _unreadable(path, str(fault)) from fault
    if not any(header):
        raise _unreadable(path, "its first line names no columns")
    return header, rows


class JsonLinesSource:
    """A `.jsonl` file: one JSON object a line. Image paths are relative to it."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or str(path)
        self._folder = str(path.parent)
        self.class_names: tuple[str, ...] | None = None
        try:
            # Not `splitlines`: JSON strings may hold other characters that it takes for the end of a line.
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as fault:
            raise _unreadable(path, str(fault)) from fault
        numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        self._lines = [line for _, line in numbered]
        self.keys = [f"{path.stem}:{number}" for number, _ in numbered]
        self.columns: tuple[str, ...] = probed_columns(self)

    def __len__(self) -> int:
        return len(self._lines)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        try:
            value = json.loads(self._lines[index])
        except (ValueError, RecursionError) as fault:
            raise BadSample("damaged json") from fault
        if not isinstance(value, dict):
            raise BadSample("line is no json object")
        return value


def _unreadable(path: Path, reason: str) -> DiagnosticError:
    return DiagnosticError((TableUnreadable.at(Span("<command line>", 0, 0), path=path, reason=reason),))
