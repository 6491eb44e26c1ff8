"""Files that data names: inside the folder of the data, and names that may be anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from vlmdsl.runtime.data.source import BadSample
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["OUTSIDE", "inside", "read_inside", "well_formed"]

OUTSIDE = "outside the folder of the data"
"""How files are described that lie in no folder from which may be read."""


def inside(path: str | Path, folders: Iterable[str]) -> str | None:
    """The path without symbolic links if it lies in one of the folders; else None."""
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):
        return None
    homes = (_real_folder(os.path.abspath(os.path.expanduser(folder))) for folder in folders)
    return real if any(real == home or real.startswith(home.rstrip(os.sep) + os.sep) for home in homes) else None


_real_folder = lru_cache(maxsize=256)(os.path.realpath)
"""Asked for every image: a folder is where it was when the run began."""


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
