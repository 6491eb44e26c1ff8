"""Webdataset tar shards with random access: an index of the members, read once; samples are then read from their place."""

from __future__ import annotations

import json
import re
import tarfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import ShardUnreadable
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.source import BadSample, LazyColumns, probed_columns
from vlmdsl.source import Span

__all__ = ["TarSource", "member_columns"]

_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
"""Key and ending of a member's name: the key ends at the first dot of the last part; hidden files are no members."""

_TEXT_SUFFIXES = ("txt", "text", "caption")


class TarSource:
    """The samples of one or several shards: consecutive members with the same key.

    The key of a sample is `SHARD/KEY`. An image member is the column `image`; `txt`, `text` and `caption` members are texts
    under these names; the keys of a `json` object are columns; `cls` is an integer. A longer ending names its column:
    `7.depth.png` is the image column `depth`. Other members are left out.
    """

    def __init__(self, paths: Sequence[Path], name: str = "") -> None:
        self.name = name or ", ".join(str(path) for path in paths)
        self.keys: list[str] = []
        self.class_names: tuple[str, ...] | None = None
        self._paths = list(paths)
        self._suffixes: list[str] = []
        # Flat arrays: shards of millions of samples are indexed in a few bytes a member.
        self._shard_of_sample = array("i")
        self._first_member = array("q", [0])
        self._suffix, self._offset, self._length = array("i"), array("q"), array("q")
        for number, path in enumerate(paths):
            self._index(number, path)
        self.columns: tuple[str, ...] = probed_columns(self)

    def __len__(self) -> int:
        return len(self.keys)

    def folder_of(self, index: int) -> str | None:
        return None

    def __getitem__(self, index: int) -> Mapping[str, object]:
        path = self._paths[self._shard_of_sample[index]]
        members = {
            self._suffixes[self._suffix[member]]: partial(_read, path, self._offset[member], self._length[member])
            for member in range(self._first_member[index], self._first_member[index + 1])
        }
        return member_columns(members)

    def _index(self, number: int, path: Path) -> None:
        suffixes = {suffix: position for position, suffix in enumerate(self._suffixes)}
        previous = None
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    match = _MEMBER.fullmatch(member.name) if member.isreg() else None
                    if match is None:
                        continue
                    if match[1] != previous:
                        previous = match[1]
                        self.keys.append(f"{path.stem}/{previous}")
                        self._shard_of_sample.append(number)
                        self._first_member.append(self._first_member[-1])
                    self._suffix.append(suffixes.setdefault(match[2].lower(), len(suffixes)))
                    self._offset.append(member.offset_data)
                    self._length.append(member.size)
                    self._first_member[-1] += 1
                end = archive.offset
            # A header that is damaged or cut off ends the iteration as if the shard were complete; a complete one ends with
            # a block of zeros.
            if _read(path, end, tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"damaged at byte {end}")
        except BadSample as fault:
            raise _unreadable(path, f"it ends in the middle, at byte {path.stat().st_size}") from fault
        except (tarfile.TarError, OSError) as fault:
            raise _unreadable(path, str(fault)) from fault
        self._suffixes = list(suffixes)


def _unreadable(path: Path, reason: str) -> DiagnosticError:
    return DiagnosticError((ShardUnreadable.at(Span("<command line>", 0, 0), path=path, reason=reason),))


def _read(path: Path, offset: int, length: int) -> bytes:
    # Opened anew each time: nothing is shared between the processes that load.
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as fault:
        raise BadSample("unreadable file") from fault
    if len(data) < length:
        raise BadSample("unreadable file")
    return data


def member_columns(members: Mapping[str, Callable[[], bytes]]) -> LazyColumns:
    """The columns of a sample made of files, given by ending; images are read when asked for, all else at once.

    Raises `BadSample` if a text, class or JSON object among them is damaged.
    """
    ready: dict[str, object] = {}
    later: dict[str, Callable[[], object]] = {}
    described: dict[str, object] = {}
    for suffix, read in members.items():
        name, _, last = suffix.rpartition(".")
        if last in IMAGE_SUFFIXES:
            later.setdefault(name or "image", read)
        elif last in _TEXT_SUFFIXES:
            ready[name or last] = _text(read())
        elif last == "json":
            described |= _object(read(), name)
        elif last == "cls":
            ready[name or last] = _class(read())
    return LazyColumns(described | ready, later)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise BadSample("text is not UTF-8") from fault


def _object(data: bytes, name: str) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise BadSample("damaged json") from fault
    return value if isinstance(value, dict) and not name else {name or "json": value}


def _class(data: bytes) -> int:
    try:
        return int(data)
    except ValueError as fault:
        raise BadSample("class is no whole number") from fault
