"""Files that data names: only inside the folder of the data, with arbitrary names."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vlmdsl.runtime.data.source import BadSample
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["OUTSIDE", "IndexedFile", "Stamp", "inside", "read_inside", "well_formed"]

OUTSIDE = "outside the folder of the data"
"""The reason for files outside of all allowed folders."""


_TO_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

Stamp = tuple[int, int]
"""Size and modification time of a file, which identify the indexed version."""


@dataclass(frozen=True)
class IndexedFile:
    """A file of many samples, as it was when indexed; `what` it is, for messages."""

    path: Path
    stamp: Stamp
    what: str

    @classmethod
    def of(cls, path: Path, status: os.stat_result, what: str) -> IndexedFile:
        """The file with this status."""
        return cls(path, (status.st_size, status.st_mtime_ns), what)

    def opened(self) -> io.FileIO:
        """The file; raises `BadSample` if it is not as it was."""
        return io.FileIO(self.descriptor())

    def descriptor(self) -> int:
        """The file, open to read, for whoever closes it; raises `BadSample` if it is not as it was. Opened again each time:
        nothing is shared between the processes that load."""
        try:
            file = os.open(self.path, _TO_READ)
        except OSError as fault:
            raise BadSample("unreadable file") from fault
        status = os.fstat(file)
        if (status.st_size, status.st_mtime_ns) != self.stamp:
            os.close(file)
            raise BadSample(f"{self.what} changed while it was in use")
        return file

    def read(self, offset: int, length: int, most: int) -> bytes:
        """So many bytes from a place on; raises `BadSample` if they are more than `most`."""
        if length > most:
            raise BadSample("file too large")
        file = self.descriptor()
        try:
            data = os.pread(file, length, offset)
        except OSError as fault:
            raise BadSample("unreadable file") from fault
        finally:
            os.close(file)
        if len(data) < length:
            raise BadSample("unreadable file")
        return data


def inside(path: str | Path, folders: Iterable[str]) -> str | None:
    """The path without symbolic links if it lies in one of the folders; else None."""
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):
        return None
    homes = (_real_folder(os.path.abspath(os.path.expanduser(folder))) for folder in folders)
    return real if any(real == home or real.startswith(home.rstrip(os.sep) + os.sep) for home in homes) else None


_real_folder = lru_cache(maxsize=256)(os.path.realpath)
"""Cached, because every image needs it and folders do not move during a run."""


def _can_exist(path: str | Path) -> bool:
    """Whether a file can have this path: not with a NUL or half a surrogate pair in it."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def read_inside(path: str | Path, folders: Iterable[str], most: int, what: str = "file") -> bytes:
    """The content of a regular file of at most `most` bytes that, symbolic links followed, lies in one of the folders.

    Raises `BadSample` in terms of `what`.
    """
    if not _can_exist(path):
        raise BadSample(f"{what} cannot be opened")
    real = inside(path, folders)
    if real is None:
        raise BadSample(f"{what} {OUTSIDE}")
    try:
        return read_regular(real, most, what)
    except BadFile as fault:
        raise BadSample(fault.reason) from fault


def well_formed(name: str) -> str:
    """A file's or member's name as text that can be written: bytes that are not UTF-8 as `\\udcff`.

    >>> print(well_formed("caf\\udce9.png"))
    caf\\udce9.png
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
