"""Files of many records, such as tables: their content, checked, and where each record begins."""

from __future__ import annotations

import sys
from array import array
from pathlib import Path

import numpy as np

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import TableUnreadable
from vlmdsl.runtime.data.files import IndexedFile
from vlmdsl.runtime.data.keys import smallest_unsigned
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["BYTE_ORDER", "MOST_COLUMNS", "Records", "content_of", "text_begin", "unreadable_table"]

BYTE_ORDER = b"\xef\xbb\xbf"
MOST_COLUMNS = 10_000

_OTHER_FORMS = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it first, with `gunzip`",
    b"PK\x03\x04": "it is a zip archive or an Excel file; save it as CSV in UTF-8",
    b"PAR1": "it is a Parquet file; name it `.parquet`",
    b"\xff\xfe": "it is in UTF-16; save it in UTF-8, as with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "it is in UTF-16; save it in UTF-8, as with `iconv -f UTF-16 -t UTF-8`",
}


class Records:
    """The records of a file, in 8 bytes each (16 beyond 4 GiB): where each begins and where the last ends [records + 1], and
    the number that stands in its key [records]. They are read from the file."""

    def __init__(self, file: IndexedFile, starts: array[int], numbers: array[int]) -> None:
        self._file = file
        self._starts = np.asarray(starts, dtype=smallest_unsigned(file.stamp[0]))
        self._numbers = np.asarray(numbers, dtype=smallest_unsigned(file.stamp[0]))

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, index: int) -> int:
        """The number in the key of a record."""
        return int(self._numbers[index])

    def __getitem__(self, index: int) -> bytes:
        """A record and what stands between it and the next one; raises `BadSample`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._starts[index : index + 2].tolist()
        return self._file.read(start, end - start, sys.maxsize)


def text_begin(data: bytes) -> int:
    """The offset of the text of a file: after its byte order mark, if it has one."""
    return len(BYTE_ORDER) if data.startswith(BYTE_ORDER) else 0


def content_of(path: Path, limits: Limits) -> tuple[bytes, IndexedFile]:
    """The content of a table, and the file to read its rows from later."""
    try:
        data = read_regular(path, limits.table_bytes)
        status = path.stat()
    except BadFile as fault:
        help = f"`--set data.max_table_bytes={path.stat().st_size}` reads it" if fault.reason == "file too large" else ""
        raise unreadable_table(path, fault.reason, help) from fault
    except OSError as fault:
        raise unreadable_table(path, "it was removed while it was read") from fault
    for mark, reason in _OTHER_FORMS.items():
        if data.startswith(mark):
            raise unreadable_table(path, reason)
    if status.st_size != len(data):
        raise unreadable_table(path, "it changes while it is read")
    return data, IndexedFile.of(path, status, "table")


def unreadable_table(path: Path, reason: str, *help: str) -> DiagnosticError:
    """V0824: a table cannot be read."""
    hints = tuple(filter(None, help))
    return DiagnosticError((TableUnreadable.at(Span("<command line>", 0, 0), path=path, reason=reason, help=hints),))
