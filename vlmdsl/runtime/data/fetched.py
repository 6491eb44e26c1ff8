"""Local copies of shards that are elsewhere or compressed: made once, as a whole, and read like any other shard."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import ShardUnreadable
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.runtime.files import writing
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, open_regular

__all__ = ["cache_folder", "is_address", "is_compressed", "is_shard", "local_copy"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHARD = re.compile(r"(?P<stem>.*?)\.(?:tar|(?:tar\.(?P<by>gz|bz2|xz|zst))|(?P<short>tgz))", re.IGNORECASE | re.DOTALL)
_PLACE = Span("<command line>", 0, 0)
_CHUNK = 2**20


def is_address(spec: str) -> bool:
    """Whether a specification is a URL."""
    return _ADDRESS.match(spec) is not None


def is_shard(name: str) -> bool:
    """Whether a name is that of a tar shard, compressed or not."""
    return _SHARD.fullmatch(name) is not None


def is_compressed(name: str) -> bool:
    """Whether a name is that of a compressed tar shard that can be unpacked.

    >>> is_compressed("a.tar.gz"), is_compressed("a.tar"), is_compressed("a.csv.gz")
    (True, False, False)
    """
    return _compression(name) is not None


def local_copy(place: str, limits: Limits) -> Path:
    """The shard at a URL or in a compressed file, as a tar file of this machine; an earlier copy of the same is used again.

    Copies are in `data.cache`, by default `~/.cache/vlmdsl/shards`, and stay there. Raises `DiagnosticError`: V0807 for what
    cannot be fetched, is damaged, or is larger than `data.max_shard_bytes`; V0901 without the package that its scheme
    or its compression needs;
    V0903 where no copy can be written.
    """
    try:
        with _opened(place) as (file, version):
            folder = (
                cache_folder(limits)
                / hashlib.sha256(f"{place}\0{version}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
            )
            match = _SHARD.fullmatch(place.rpartition("/")[2])
            copy = folder / f"{match['stem'] if match else 'shard'}.tar"
            if not copy.exists():
                with writing(copy):
                    folder.mkdir(parents=True, exist_ok=True)
                    _copy(_unpacked(file, place), copy, limits.shard_bytes, place)
    except ImportError as fault:
        package, extra, instead = fault.name or "fsspec", "remote", "fetch the shards first"
        if package.startswith("backports"):
            package, extra, instead = "backports.zstd", "zstandard", "unpack the shards first, with `unzstd`"
        help = (f"run `pip install 'vlmdsl[{extra}]'`, or {instead}",)
        raise DiagnosticError((PackageMissing.at(_PLACE, what=f"`{place}`", package=package, help=help),)) from fault
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, BadFile) as fault:
        raise _unreadable(place, f"it cannot be fetched or unpacked ({str(fault) or type(fault).__name__})") from fault
    return copy


def cache_folder(limits: Limits) -> Path:
    """`data.cache`, or the usual place of it."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlmdsl" / "shards"
    return Path(limits.cache or usual).expanduser()


@contextmanager
def _opened(place: str) -> Iterator[tuple[Any, object]]:
    """The bytes of a file, and what tells its versions apart."""
    if not is_address(place):
        with open_regular(place) as raw:
            status = os.fstat(raw.fileno())
            yield raw, (os.path.realpath(place), status.st_size, status.st_mtime_ns)
        return
    import fsspec

    system, path = fsspec.core.url_to_fs(place)
    facts = system.info(path)
    with system.open(path, "rb") as file:
        yield file, [str(facts.get(name)) for name in ("size", "ETag", "etag", "mtime", "LastModified", "updated")]


def _unpacked(file: Any, place: str) -> Any:
    """What reads the file, unpacked as its name says."""
    by = _compression(place)
    if by == "gz":
        return gzip.GzipFile(fileobj=file)
    if by == "bz2":
        return bz2.BZ2File(file)
    if by == "xz":
        return lzma.LZMAFile(file)
    if by == "zst":
        return _Zstandard(file)
    return file


class _Zstandard:
    """A file unpacked by Python itself from 3.14 on, before by the package `backports.zstd`, which has the same interface;
    ValueError where it is damaged."""

    def __init__(self, file: Any) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        self._file, self._error = zstd.ZstdFile(file), zstd.ZstdError

    def read(self, size: int) -> bytes:
        """At most so many bytes."""
        try:
            return bytes(self._file.read(size))
        except self._error as fault:
            raise ValueError(str(fault)) from fault


def _compression(name: str) -> str | None:
    match = _SHARD.fullmatch(name)
    return None if match is None else (match["by"] or ("gz" if match["short"] else "")).lower() or None


def _copy(file: Any, copy: Path, most: int, place: str) -> None:
    """Write the file under another name, and rename it when it is whole."""
    partial = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        with partial.open("wb") as target:
            written = 0
            while chunk := file.read(_CHUNK):
                written += len(chunk)
                if written > most:
                    raise _unreadable(place, "it is too large", f"`--set data.max_shard_bytes={2 * most}` reads more")
                target.write(chunk)
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)


def _unreadable(place: str, reason: str, *help: str) -> DiagnosticError:
    return DiagnosticError((ShardUnreadable.at(_PLACE, path=place, reason=reason, help=help),))
