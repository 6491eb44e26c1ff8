"""Texts that a decoder has written for the samples of a source: a file of one JSON string per line."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import overload

from vlmdsl.runtime.data.files import IndexedFile
from vlmdsl.runtime.data.formats.records import Records
from vlmdsl.runtime.data.source import BadSample
from vlmdsl.runtime.files import damaged, writing
from vlmdsl.runtime.values.text import clean_text

__all__ = ["TextsWriter", "WrittenTexts"]

_LONGEST_LINE = 1 << 20
"""Bytes: far more than a decoder writes of a sample."""


class WrittenTexts(Sequence[str]):
    """The texts of a file by the places of their samples, read when they are asked for; empty where none was written.

    They take 16 bytes of memory each. V0850 for a file that does not hold a line for each of so many `samples`.
    """

    def __init__(self, path: Path, samples: int) -> None:
        starts = array("Q", [0])
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):
                    raise damaged(path, f"line {len(starts)} has no end within {_LONGEST_LINE:,} bytes")
                starts.append(file.tell())
            status = os.fstat(file.fileno())
        if len(starts) - 1 != samples:
            raise damaged(path, f"it holds {len(starts) - 1:,} texts for {samples:,} samples")
        self._lines = Records(IndexedFile.of(path, status, "written texts"), starts, array("Q", range(samples)))

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """The text of a sample; raises `BadSample` where the file has another line there."""
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        try:
            value = json.loads(self._lines[index])
        except (ValueError, RecursionError) as fault:
            raise BadSample("written text is not a json string") from fault
        if not isinstance(value, str):
            raise BadSample("written text is not a json string")
        return clean_text(value)


class TextsWriter:
    """Writes such a file: complete or absent. Without a path it writes nothing, as on all processes but the first."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._partial = None if path is None else path.with_name(f".partial-{os.getpid()}-{path.name}")
        self._file = None if self._partial is None else _new_file(self._partial)
        self._lines = 0

    def __enter__(self) -> TextsWriter:
        return self

    def add(self, texts: Iterable[tuple[int, str]]) -> None:
        """Write texts with the places of their samples, which go up; samples in between have none."""
        if self._file is None or self._path is None:
            return
        with writing(self._path):
            for place, text in texts:
                self._fill(place)
                self._file.write(json.dumps(text).encode() + b"\n")
                self._lines += 1

    def finish(self, samples: int) -> None:
        """The rest of so many samples has no text; then the file has its name."""
        if self._file is None or self._path is None or self._partial is None:
            return
        with writing(self._path):
            self._fill(samples)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)

    def _fill(self, place: int) -> None:
        assert self._file is not None
        self._file.write(b'""\n' * (place - self._lines))
        self._lines = place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None and self._partial is not None:
            self._file.close()
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)


def _new_file(path: Path) -> BufferedWriter:
    """What lies under this name, such as a link to elsewhere, is not written through."""
    with writing(path):
        path.unlink(missing_ok=True)
        return path.open("xb")
