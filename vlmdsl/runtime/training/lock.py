"""A folder that one process works in at a time. POSIX systems only, as the rest of the package; needs no torch."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.runs import RunInUse
from vlmdsl.runtime.files import damaged, writing
from vlmdsl.source import Span

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
_LONGEST_NOTE = 1000
_HELD: set[tuple[int, int]] = set()
"""Locks of this process by device and inode: the system's do not stop the process that has one from taking it again."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of `folder`, the file `.lock`; DiagnosticError V0851 at once if another process or thread does.

    The lock is the system's and ends with the process, so what a killed one leaves behind is taken over. The file is removed
    at the end, while it is still locked: who opened it before that finds that it is no longer there, and makes a new one.
    """
    path = folder / LOCK
    with writing(path):
        file, key = _taken(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        _HELD.discard(key)
        file.close()


def _taken(path: Path) -> tuple[IO[bytes], tuple[int, int]]:
    while True:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise damaged(path, "it is not a regular file")
        # Not even opened where this process has it: closing a second descriptor would release the lock.
        if _key(path) in _HELD:
            raise _in_use(path, f"process {os.getpid()}, this one")
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b", buffering=0)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = _holder(file)
                file.close()
                raise _in_use(path, holder) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                raise
            # A file system without locks: the run continues without one, as `docs/architecture.md` says.
        key = _key(file.fileno())
        if key is not None and _key(path) == key:
            _HELD.add(key)
            _sign(file)
            return file, key
        file.close()


def _key(file: Path | int) -> tuple[int, int] | None:
    """Device and inode; None where there is no such file."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _sign(file: IO[bytes]) -> None:
    """Write the owner of the lock, for the message to another process."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    file.truncate(0)
    file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}).encode())


def _holder(file: IO[bytes]) -> str:
    """Who wrote the lock file, in words; what it holds may be anything."""
    try:
        note = json.loads(file.read(_LONGEST_NOTE))
        return f"process {int(note['process'])} on {str(note['host'])[:80]} since {str(note['since'])[:40]}"
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return "another process"


def _in_use(path: Path, holder: str) -> DiagnosticError:
    note = f"the lock is held by {holder}"
    help = "wait until it has ended, or choose another `--out`"
    place = Span("<command line>", 0, 0)
    return DiagnosticError((RunInUse.at(place, path=path.parent, notes=(note,), help=(help,)),))
