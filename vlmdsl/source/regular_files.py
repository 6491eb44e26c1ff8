"""Reads regular files of bounded size: paths in foreign data may name a device, or a pipe without a writer."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

__all__ = ["BadFile", "lines_of", "open_regular", "read_lines", "read_regular", "read_text"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
"""Opens a pipe without blocking, so that it can be recognised; otherwise opening would wait for a writer."""


class BadFile(Exception):  # noqa: N818 - what became of it is for the caller to say
    """A file cannot be read; `reason` is a short phrase that files of the same fault share."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def open_regular(path: str | Path, what: str = "file") -> io.FileIO:
    """Open a regular file for reading; `BadFile` in terms of `what` for anything else, without blocking.

    The file is checked before, because opening some devices has side effects, and after, because it may have been replaced.
    """
    try:
        _check_regular(os.stat(path), what)
        file = io.FileIO(os.open(path, _FLAGS))
    except FileNotFoundError as fault:
        raise BadFile(f"{what} not found") from fault
    except (OSError, ValueError) as fault:  # ValueError: a NUL, or half a surrogate pair, in the path
        raise BadFile(f"{what} cannot be opened") from fault
    try:
        _check_regular(os.fstat(file.fileno()), what)
    except BadFile:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadFile(f"{what} is not a regular file")


def read_regular(path: str | Path, most: int, what: str = "file") -> bytes:
    """The content of a regular file of at most `most` bytes; `BadFile` in terms of `what`."""
    with open_regular(path, what) as file:
        try:
            # Some files (of /proc) hold more than the size they state, so the size alone is not a bound.
            data = b"" if os.fstat(file.fileno()).st_size > most else _at_most(file, most + 1)
        except OSError as fault:
            raise BadFile(f"{what} cannot be read") from fault
        if len(data) > most or os.fstat(file.fileno()).st_size > most:
            raise BadFile(f"{what} too large")
    return data


def read_text(path: str | Path, most: int) -> str:
    """A UTF-8 file of at most `most` bytes; `~` is the home folder. Raises `BadFile`."""
    try:
        return read_regular(Path(path).expanduser(), most).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise BadFile("it is not UTF-8 text") from fault
    except RuntimeError as fault:  # `~nobody`
        raise BadFile("there is no such home folder") from fault


def read_lines(path: str | Path, most: int) -> list[str]:
    """The lines of a text as of `read_text`, without comments, which `#` begins. Raises `BadFile`."""
    return lines_of(read_text(path, most))


def lines_of(text: str) -> list[str]:
    """The lines of a text without comments, which `#` begins."""
    return [line.partition("#")[0] for line in text.splitlines()]


def _at_most(file: io.FileIO, count: int) -> bytes:
    """Up to `count` bytes; a raw read may return fewer."""
    data = file.read(min(count, os.fstat(file.fileno()).st_size + 1)) or b""
    parts, length = [data], len(data)
    while data and length < count:
        data = file.read(min(count - length, io.DEFAULT_BUFFER_SIZE)) or b""
        parts.append(data)
        length += len(data)
    return b"".join(parts)
