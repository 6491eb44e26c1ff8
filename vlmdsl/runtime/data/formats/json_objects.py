"""JSON: lines of one object each, or an array of objects, with the paths of images in them."""

from __future__ import annotations

import itertools
import json
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlmdsl.runtime.data.formats.records import BYTE_ORDER, Records, content_of, text_begin, unreadable_table
from vlmdsl.runtime.data.formats.rows import DataPath, RowSource
from vlmdsl.runtime.data.limits import LONGEST_DESCRIPTION
from vlmdsl.runtime.data.members import read_json
from vlmdsl.runtime.data.source import BadSample, probed_columns

__all__ = ["MOST_VALUES", "JsonSource"]

MOST_VALUES = 10_000_000
"""Values of a JSON array, which is parsed as a whole: each takes a hundred bytes."""


class JsonSource(RowSource):
    """A `.jsonl` file of one JSON object per line, or a `.json` file of one array of objects. Paths are relative to it."""

    def __init__(self, data: DataPath) -> None:
        super().__init__(data.name, data.folder)
        self._stem = data.stem
        path = data.path
        content, file = content_of(path, data.limits)
        starts, numbers = array("Q"), array("Q")
        if _is_array(path, content.removeprefix(BYTE_ORDER)):
            places = array("Q", itertools.chain.from_iterable(_elements(path, content)))
            starts = places[0::2] + (places[-1:] or array("Q", [0]))
            numbers = array("Q", range(1, len(starts)))
        else:
            for number, start, _ in _filled_lines(content):
                starts.append(start)
                numbers.append(number)
            _check_lines(path, [line for _, _, line in itertools.islice(_filled_lines(content), 2)])
            starts.append(len(content))
        self._texts = Records(file, starts, numbers)
        self.columns = probed_columns(self)

    def __len__(self) -> int:
        return len(self._texts)

    def _key(self, index: int) -> str:
        return f"{self._stem}:{self._texts.number(index)}"

    def _row(self, index: int) -> Mapping[str, object]:
        # What stands between two elements of an array is part of the first one's record.
        value = read_json(self._texts[index].strip().removesuffix(b",").rstrip())
        if not isinstance(value, dict):
            raise BadSample("line is not a json object")
        return value


def _filled_lines(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The lines that are not empty: their number, where they begin, and their text."""
    start = text_begin(data)
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
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise unreadable_table(path, "it is too large for one JSON array", "write one object per line, to a `.jsonl` file")
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
        raise unreadable_table(path, f"it is a damaged JSON array ({fault})") from fault


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
        raise unreadable_table(path, "it is not an array of objects", help)
