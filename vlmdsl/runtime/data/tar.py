"""The members of a tar archive, in bounded time and memory whatever its headers say."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from vlmdsl.runtime.data.left_out import LeftOut

__all__ = ["BLOCK", "DamagedTar", "Entry", "Member", "Place", "entry_at", "members_from", "members_of"]

_LARGEST_HEADER = 32 * 2**10
"""Maximum bytes of a long name or of extended attributes (`pax`). The library would read whatever length they claim."""

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
    """A file that is not a tar archive, or is damaged; the message says where."""


BLOCK = tarfile.BLOCKSIZE
"""Bytes that headers and contents are padded to: whatever an archive holds begins at a multiple of it."""

_HEADERS = 3
"""Blocks that the headers of most members take: their own, and two of extended attributes before it."""

_AT_ONCE = 4096
"""Bytes that are read of a sample's member at once: its headers, and all of a short text."""

_TIMES = re.compile(rb"(?:\d{1,3} [amc]time=\d{1,20}(?:\.\d{1,20})?\n)+\0*")
"""Extended attributes with times only, which webdataset's writer puts before every member."""

_ADLER = 65521
_OF_ALL_MEMBERS = ("path", "linkpath", "size", "hdrcharset", "GNU.sparse")

Place = tuple[int, int]
"""Where the content of a member begins, and how long it is, in bytes."""


class Member(NamedTuple):
    """A regular file in an archive: its name, where its headers begin, where its content is, and where the next one
    begins."""

    name: str
    header: int
    offset: int
    size: int
    end: int


class Entry(NamedTuple):
    """What stands at one place of an archive, and where the next one begins."""

    name: str
    header: int
    end: int
    place: Place | None
    """None: it is not a regular file."""
    kind: str = ""
    """What it is instead, in the plural; empty for a folder."""
    linked: str | None = None
    """The name of the earlier member that a hard link stands for."""


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
    places: dict[str, Place] | None = None
    end = 0
    for entry in _entries(file, size):
        end = entry.end
        place = entry.place
        if entry.linked is not None:
            if places is None:  # most archives have no links, so earlier names are not needed
                places = _places_before(file, size, entry.header)
            place = places.get(entry.linked)
        if place is None:
            if entry.kind:
                left_out.add(entry.kind, f"{name}: {entry.name}")
            continue
        if places is not None:
            places[entry.name] = place
        yield Member(entry.name, entry.header, *place, entry.end)
    _check_end(file, end, size)


def entry_at(file: io.FileIO, size: int, offset: int) -> tuple[Entry, bytes | None]:
    """What stands at `offset` of an archive that was read before, and its content if it is short. Raises `DamagedTar`."""
    blocks = os.pread(file.fileno(), _AT_ONCE, offset)
    entry = _checked(_plain_entry(blocks[: _HEADERS * BLOCK], offset) or _any_entry(file, offset), size)
    if entry is None:
        raise DamagedTar(f"damaged at byte {offset}")
    if entry.place is None:
        return entry, None
    start, length = entry.place[0] - offset, entry.place[1]
    return entry, blocks[start : start + length] if start + length <= len(blocks) else None


def members_from(file: io.FileIO, size: int, offset: int) -> Iterator[Member]:
    """The members of an archive from `offset` on, hard links without content (offset -1). Raises `DamagedTar`."""
    for entry in _entries(file, size, offset):
        offset = entry.end
        place = entry.place if entry.linked is None else (-1, 0)
        if place is not None:
            yield Member(entry.name, entry.header, *place, entry.end)
    _check_end(file, offset, size)


def _entries(file: io.FileIO, size: int, offset: int = 0) -> Iterator[Entry]:
    while (entry := _entry(file, size, offset)) is not None:
        offset = entry.end
        yield entry


def _places_before(file: io.FileIO, size: int, end: int) -> dict[str, Place]:
    """The places of the members before `end`, by name."""
    places: dict[str, Place] = {}
    for entry in _entries(file, size):
        if entry.header >= end:
            break
        if entry.place is not None:
            places[entry.name] = entry.place
    return places


def _entry(file: io.FileIO, size: int, offset: int) -> Entry | None:
    """What stands at `offset`; None at the end, and where a damaged header looks like one."""
    return _checked(
        _plain_entry(os.pread(file.fileno(), _HEADERS * BLOCK, offset), offset) or _any_entry(file, offset), size
    )


def _checked(entry: Entry | None, size: int) -> Entry | None:
    """The same; `DamagedTar` if it is not in an archive of `size` bytes."""
    if entry is not None and not entry.header < entry.end <= size + BLOCK:
        raise DamagedTar(f"damaged at byte {entry.header}, or cut off: it ends at byte {size}")
    if entry is not None and entry.place is not None and sum(entry.place) > size:
        raise DamagedTar(f"it ends in the middle, at byte {size}")
    return entry


def _plain_entry(blocks: bytes, offset: int) -> Entry | None:
    """A regular file with a header of one block, or that behind nothing but times; None for all else, sound or not.

    The library takes ten times as long, and a data set has millions of members.
    """
    try:
        header, start = blocks[:BLOCK], offset
        if header[156:157] == b"x" and _is_sound(header):
            attributes = blocks[BLOCK : 2 * BLOCK]
            if len(attributes.rstrip(b"\0")) != int(header[124:135], 8) or not _TIMES.fullmatch(attributes):
                return None
            header = blocks[2 * BLOCK :]
            offset += 2 * BLOCK
        if header[156:157] not in (b"0", b"\0") or not _is_sound(header):
            return None
        name = header[:100].rstrip(b"\0").decode("utf-8")
        prefix = header[345:500].rstrip(b"\0").decode("utf-8") if header[345] else ""
        size = int(header[124:135], 8)
    except ValueError:
        return None
    if not name or name.endswith("/") or "\0" in name or "\0" in prefix:
        return None
    content = offset + BLOCK
    end = content + -(-size // BLOCK) * BLOCK
    return Entry(f"{prefix}/{name}" if prefix else name, start, end, (content, size))


def _is_sound(header: bytes) -> bool:
    """Whether a block is a header as most writers make it, with the sum of its bytes in it; `ValueError` if that is not a
    number."""
    marks = header[154:156], header[257:265]
    if marks not in ((b"\0 ", b"ustar\00000"), (b"\0 ", b"ustar  \0")) or not header[124:135].isdigit():
        return False
    stated = int(header[148:154], 8)
    # Half of Adler's checksum is one more than the sum. The sum is taken with blanks where it stands itself.
    total = zlib.adler32(header[:148] + b"        " + header[156:]) & 0xFFFF
    return (stated + 1) % _ADLER == total


def _any_entry(file: io.FileIO, offset: int) -> Entry | None:
    """What stands at `offset`, read by the library."""
    file.seek(offset)
    headers = _Headers(file)
    try:
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8") as archive:
            member = archive.next()
            if any(key.startswith(_OF_ALL_MEMBERS) for key in archive.pax_headers):
                raise DamagedTar("it has a header that gives one name or size to all of its members")
            return None if member is None else _sorted_in(member, archive.offset)
    except DamagedTar:
        raise
    except Exception as fault:
        # The library meets damaged headers with TarError, ValueError, OverflowError, RecursionError and more.
        raise DamagedTar(_reason(headers, fault)) from fault
    finally:
        if not file.closed:
            headers.detach()


def _sorted_in(member: tarfile.TarInfo, end: int) -> Entry:
    if member.size < 0:
        raise DamagedTar(f"damaged at byte {member.offset}: a member claims {member.size} bytes")
    if member.islnk():
        return Entry(member.name, member.offset, end, None, _kind(member), member.linkname)
    if not member.isreg() or member.sparse is not None:
        return Entry(member.name, member.offset, end, None, "" if member.isdir() else _kind(member))
    return Entry(member.name, member.offset, end, (member.offset_data, member.size))


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
    mark = file.read(BLOCK)
    if mark is None or len(mark) < BLOCK:
        raise DamagedTar(f"it ends in the middle, at byte {size}")
    if mark.strip(b"\0"):
        raise DamagedTar(f"damaged at byte {end}")
    while chunk := file.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise DamagedTar(f"more follows its end at byte {end}: a header is damaged, or archives were joined")
