"""The members of a tar archive, in bounded time and memory whatever its headers say."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from vlmdsl.runtime.data.left_out import LeftOut

__all__ = ["DamagedTar", "Member", "members_of"]

_LARGEST_HEADER = 32 * 2**10
"""Bytes of a long name or of extended attributes (`pax`). The library reads them whole, as long as they claim to be."""

_CHUNK = 2**20

_OTHER_FORMS = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it first, with `gunzip`",
    b"BZh": "it is compressed with bzip2; unpack it first, with `bunzip2`",
    b"\xfd7zXZ": "it is compressed with xz; unpack it first, with `unxz`",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstandard; unpack it first, with `unzstd`",
    b"PK\x03\x04": "it is a zip archive; unpack it into a folder, with `unzip`",
    b"PAR1": "it is a Parquet file",
    b"7z\xbc\xaf": "it is a 7-Zip archive",
}


class DamagedTar(Exception):  # noqa: N818 - a fact about a file, which a diagnostic tells
    """An archive that is none, or is damaged; the text says where."""


class Member(NamedTuple):
    """A regular file in an archive, by its name and the place of its content."""

    name: str
    offset: int
    size: int


class _Headers(io.BufferedReader):
    """An archive of which only headers are read: a longer read is the claim of a damaged one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return super().read(size)


def members_of(file: io.FileIO, size: int, left_out: LeftOut, name: str) -> Iterator[Member]:
    """The regular files of an archive of `size` bytes, hard links as what they link to; everything else but folders is
    counted. Raises `DamagedTar` if any of it is damaged: an archive that seems to end early has lost its members.
    """
    places: dict[str, tuple[int, int]] = {}
    headers = _Headers(file)
    try:
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all headers, a thousand bytes each
                place = _place(member, places, size, archive.offset)
                if place is not None:
                    places[member.name] = place
                    yield Member(member.name, *place)
                elif not member.isdir():
                    left_out.add(_kind(member), f"{name}: {member.name}")
            end = archive.offset
    except DamagedTar:
        raise
    except Exception as fault:
        # The library meets damaged headers with TarError, ValueError, OverflowError, RecursionError and more.
        raise DamagedTar(_reason(headers, fault)) from fault
    finally:
        if not file.closed:
            headers.detach()
    _check_end(file, end, size)


def _place(member: tarfile.TarInfo, places: dict[str, tuple[int, int]], size: int, offset: int) -> tuple[int, int] | None:
    """Where the content of a member is, and how long; None if it has none that can be read."""
    if member.size < 0 or offset > size + tarfile.BLOCKSIZE or offset <= member.offset:
        raise DamagedTar(f"damaged at byte {member.offset}, or cut off: it ends at byte {size}")
    if member.islnk():
        return places.get(member.linkname)
    if not member.isreg() or member.sparse is not None:
        return None
    if member.offset_data + member.size > size:
        raise DamagedTar(f"it ends in the middle, at byte {size}")
    return member.offset_data, member.size


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "links to what is not in the shard before them" if member.islnk() else "symbolic links"
    return "sparse files" if member.sparse is not None else "devices and pipes"


def _reason(headers: _Headers, fault: Exception) -> str:
    """Why an archive cannot be read."""
    try:
        headers.seek(0)
        beginning = headers.read(8)
    except (OSError, ValueError):
        beginning = b""
    for mark, reason in _OTHER_FORMS.items():
        if beginning.startswith(mark):
            return reason
    return f"{fault}" if isinstance(fault, tarfile.TarError) else "a header is damaged"


def _check_end(file: io.FileIO, end: int, size: int) -> None:
    """A damaged header ends the iteration as if the archive were complete; a complete one ends with zeros."""
    file.seek(end)
    mark = file.read(tarfile.BLOCKSIZE)
    if mark is None or len(mark) < tarfile.BLOCKSIZE:
        raise DamagedTar(f"it ends in the middle, at byte {size}")
    if mark.strip(b"\0"):
        raise DamagedTar(f"damaged at byte {end}")
    while chunk := file.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise DamagedTar(f"more follows its end at byte {end}: a header is damaged, or archives were joined")
