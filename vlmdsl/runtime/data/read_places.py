"""Where data is read, so that nothing is written there: neither over it, nor so that it is read as data the next time."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable
from pathlib import Path

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.sources import WrittenWhereItIsRead
from vlmdsl.runtime.data.specification import local_places
from vlmdsl.source import Span

__all__ = ["check_apart", "check_apart_from"]


def check_apart(out: str | Path, specs: str | Iterable[str], option: str, *, files: Iterable[str] = ()) -> None:
    """V0870 if a file or a folder `out` is, or is in, a place that one of the specifications of data reads.

    A pattern (`shards/*.tar`) is a place only for files that it matches: `out` itself, or those that will be `files` in it.
    `option` is what names `out` on the command line. Nothing is opened: data that does not exist is reported elsewhere.
    """
    for spec in [specs] if isinstance(specs, str) else specs:
        for place, is_pattern in local_places(spec):
            written = [Path(out), *(Path(out) / file for file in files)]
            if is_pattern and any(fnmatch.fnmatch(_absolute(each), _absolute(Path(place))) for each in written):
                raise _written_where_read(out, place, option)
            if not is_pattern:
                check_apart_from(out, place, option)


def check_apart_from(out: str | Path, place: str | Path, option: str) -> None:
    """V0870 if `out` is a file or a folder `place`, or is in that folder."""
    try:
        own, read = Path(out).resolve(), Path(place).resolve()
    except (OSError, ValueError, RuntimeError):  # not a path: what opens or writes it says so
        return
    if own == read or (read in own.parents and read.is_dir()):
        raise _written_where_read(out, place, option)


def _absolute(path: Path) -> str:
    return os.path.abspath(path.expanduser())


def _written_where_read(out: str | Path, place: str | Path, option: str) -> DiagnosticError:
    span, help = (
        Span("<command line>", 0, 0),
        f"choose a place beside it, such as `{_beside(Path(out), Path(place), option)}`",
    )
    return DiagnosticError((WrittenWhereItIsRead.at(span, option=option, out=out, place=place, help=(help,)),))


def _beside(out: Path, place: Path, option: str) -> Path:
    """A place for what is to be written, named after what is read."""
    read = place.parent if glob.has_magic(place.name) else place
    word = option.strip("`").lstrip("-").lower().removesuffix("_dir")
    read = read if read.name else read.resolve()
    return read.with_name(f"{read.stem if out.suffix else read.name}-{word}{out.suffix}")
