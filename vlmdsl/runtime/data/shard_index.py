"""The places of the samples of a shard: four bytes each; everything else is read from its headers."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import ShardUnreadable
from vlmdsl.runtime.data.files import IndexedFile, well_formed
from vlmdsl.runtime.data.keys import PackedNames, smallest_unsigned
from vlmdsl.runtime.data.left_out import LeftOut, shortened
from vlmdsl.runtime.data.members import Read, is_read
from vlmdsl.runtime.data.source import BadSample
from vlmdsl.runtime.data.tar import BLOCK, DamagedTar, Member, Place, entry_at, members_from, members_of
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, open_regular

__all__ = [
    "Endings",
    "ShardIndex",
    "ShardSamples",
    "ending_of",
    "index_shard",
    "leave_out",
    "members_in",
    "sample_at",
    "unreadable_shard",
]

_MOST_BYTES = 14
"""Bytes that places and names of a shard may take, per sample; with what is around them it is less than 16."""


def ending_of(name: str) -> tuple[str, str]:
    """The key of a member's name, and its ending in small letters if such files are read: else, or without a key, an empty
    text.

    >>> ending_of("dir.v2/7.depth.PNG"), ending_of("7.bin"), ending_of(".hidden")
    (('dir.v2/7', 'depth.png'), ('7', ''), ('', ''))
    """
    key, ending = _split(name)
    return key, ending if is_read(ending) else ""


def _split(name: str) -> tuple[str, str]:
    """The key of a member's name, which ends at the first dot of its last part, and its ending; hidden files and those
    without an ending have none."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if stem and ending else ("", "")


def members_in(
    shard: IndexedFile, spans: Iterable[tuple[int, int]], links: Mapping[int, Place]
) -> tuple[str, dict[str, Read]]:
    """The key of the sample whose members' headers stand in `spans` (from a byte up to another), and what reads its members,
    by their endings; `links` are the places of hard links by those of their headers.

    Raises `BadSample` if the shard is not the one that it was.
    """
    key, readers = "", dict[str, Read]()
    with shard.opened() as file:
        try:
            for start, end in spans:
                while start < end:
                    entry, content = entry_at(file, shard.stamp[0], start)
                    start = entry.end
                    if entry.place is None and entry.linked is None:
                        continue
                    name, ending = ending_of(entry.name)
                    key = key or name
                    if not ending:
                        continue
                    if content is not None:
                        readers[ending] = partial(_at_most, content)
                    elif (place := entry.place or links.get(entry.header)) is not None:
                        readers[ending] = partial(shard.read, *place)
        except (DamagedTar, OSError) as fault:
            raise BadSample("unreadable file") from fault
    return key, readers


def _at_most(content: bytes, most: int) -> bytes:
    """What was read already; `BadSample` if it is more than `most` bytes."""
    if len(content) > most:
        raise BadSample("file too large")
    return content


def sample_at(shard: IndexedFile, offset: int) -> tuple[str, dict[str, Read]]:
    """The key of the sample whose headers begin at `offset`, and what reads its members, which follow one another.

    Raises `BadSample` if the shard is not the one that it was.
    """
    key, endings, readers = "", set[str](), dict[str, Read]()
    with shard.opened() as file:
        try:
            for member in members_from(file, shard.stamp[0], offset):
                name, ending = ending_of(member.name)
                if name and ((key and name != key) or ending in endings):
                    break
                key = key or name
                endings |= {ending} if ending else set()
                if ending and member.offset >= 0:
                    readers[ending] = partial(shard.read, member.offset, member.size)
        except (DamagedTar, OSError) as fault:
            raise BadSample("unreadable file") from fault
    return key, readers


@dataclass(frozen=True)
class ShardIndex:
    """The places of the samples of one shard, in blocks, and their names where those take few bytes.

    Usually the members of a sample follow one another: sample `i` has what is from `starts[i]` up to `starts[i + 1]`. Else
    `starts` are the places of all members, those of sample `i` from `starts[first[i]]` up to `starts[first[i + 1]]`. The
    first of them says what the sample is called. Names without a pattern, such as 32 random digits, are read from there.
    """

    shard: IndexedFile
    starts: np.ndarray
    first: np.ndarray | None
    links: dict[int, Place]
    held: PackedNames | None

    def __len__(self) -> int:
        return len(self.starts if self.first is None else self.first) - 1

    def members(self, index: int) -> tuple[str, dict[str, Read]]:
        """The name of a sample, and what reads its members, by their endings; raises `BadSample`."""
        if self.first is None:
            spans = [(int(self.starts[index]) * BLOCK, int(self.starts[index + 1]) * BLOCK)]
        else:
            own = self.starts[self.first[index] : self.first[index + 1]].tolist()
            spans = [(start * BLOCK, start * BLOCK + 1) for start in own]
        name, readers = members_in(self.shard, spans, self.links)
        return well_formed(name), readers

    def name(self, index: int) -> str:
        """The name of a sample; its place, if it cannot be read any more."""
        return next(self._names([index])) if self.held is None else self.held[index]

    def names(self) -> Iterator[str]:
        """The names of all samples in their order."""
        return self._names(range(len(self))) if self.held is None else iter(self.held)

    def _names(self, indices: Iterable[int]) -> Iterator[str]:
        """The names of samples as their headers say."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self.shard.opened())
            except BadSample:
                file = None
            for index in indices:
                block = int(self.starts[index if self.first is None else self.first[index]])
                name = f"@{block}"
                if file is not None:
                    with contextlib.suppress(DamagedTar, OSError):
                        entry, _ = entry_at(file, self.shard.stamp[0], block * BLOCK)
                        name = well_formed(ending_of(entry.name)[0])
                yield name


@dataclass
class Endings:
    """How many members have which ending with a dot in it, and the key of the first sample that has it."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, ending: str, key: str) -> None:
        """A member of the sample `key`."""
        if "." in ending:
            self.counts[ending] += 1
            self.first.setdefault(ending, key)


class ShardSamples:
    """The samples of one shard during a scan of its members: their names, and the places of their members."""

    def __init__(self, stem: str, endings: Endings) -> None:
        self.names: list[str] = []
        self._stem, self._endings = stem, endings
        self._starts = array("Q")
        self._owner, self._header = array("Q"), array("Q")
        self._links: dict[int, Place] = {}
        self._in_a_row = True
        self._sample_of: dict[str, int] = {}
        self._present: list[set[str]] = []

    @property
    def repeat(self) -> bool:
        """Whether several samples have one name."""
        return len(self._sample_of) < len(self.names)

    def add(self, key: str, ending: str, member: Member) -> None:
        """A member of the sample of a key, or of a new one if there is none or it has such a member. A member that is not
        read (without an ending) makes a sample known and nothing else."""
        sample = self._sample_of.get(key)
        new = sample is None or (ending != "" and ending in self._present[sample])
        if sample is None or new:
            sample = self._sample_of[key] = len(self.names)
            self.names.append(well_formed(key))
            self._present.append(set())
            self._starts.append(member.header)
        if new or ending:
            self._in_a_row &= sample == len(self.names) - 1
            self._owner.append(sample)
            self._header.append(member.header)
        if not ending:
            return
        self._present[sample].add(ending)
        self._endings.add(ending, f"{self._stem}/{key}")
        if member.offset < member.header:
            self._links[member.header] = (member.offset, member.size)

    def index(self, shard: IndexedFile, end: int) -> ShardIndex:
        """Where the samples are in the shard, whose last member ends at `end`."""
        blocks = smallest_unsigned(shard.stamp[0] // BLOCK)
        if self._in_a_row:
            starts = np.append(np.asarray(self._starts, dtype=np.uint64), np.uint64(end)) // BLOCK
            return self._indexed(shard, starts.astype(blocks), None)
        owners = np.asarray(self._owner, dtype=np.int64)
        headers = np.asarray(self._header, dtype=np.uint64)[np.argsort(owners, kind="stable")] // BLOCK
        ends = np.cumsum(np.bincount(owners, minlength=len(self.names)))
        first = np.concatenate([[0], ends]).astype(smallest_unsigned(len(headers)))
        return self._indexed(shard, headers.astype(blocks), first)

    def _indexed(self, shard: IndexedFile, starts: np.ndarray, first: np.ndarray | None) -> ShardIndex:
        """The index, with the names if they find room in what a sample may take."""
        places = starts.nbytes + (0 if first is None else first.nbytes)
        names = None if any(name.endswith("\0") for name in self.names) else PackedNames(self.names)
        if names is not None and places + names.nbytes > _MOST_BYTES * len(names):
            names = None
        return ShardIndex(shard, starts, first, self._links, names)


def index_shard(path: Path, left_out: LeftOut, endings: Endings) -> tuple[ShardIndex, ShardSamples]:
    """The samples of a shard; raises `DiagnosticError` (V0807) for one that cannot be read or is damaged."""
    samples = ShardSamples(path.stem, endings)
    end = 0
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            shard = IndexedFile.of(path, status, "shard")
            for member in members_of(file, status.st_size, left_out, path.name):
                key, ending = ending_of(member.name)
                if not ending:
                    leave_out(left_out, path, member.name)
                if key:
                    samples.add(key, ending, member)
                end = member.end
    except BadFile as fault:
        raise unreadable_shard(path, fault.reason) from fault
    except (DamagedTar, OSError) as fault:
        raise unreadable_shard(path, str(fault)) from fault
    return samples.index(shard, end), samples


def leave_out(left_out: LeftOut, path: Path, name: str) -> None:
    """Count a member that is not read."""
    key, ending = _split(name)
    kind = f"`.{shortened(well_formed(ending))}` members" if key else "members that are hidden or have no extension"
    left_out.add(kind, f"{path.name}: {name}")


def unreadable_shard(path: Path, reason: str) -> DiagnosticError:
    """V0807: a shard cannot be read."""
    return DiagnosticError((ShardUnreadable.at(Span("<command line>", 0, 0), path=path, reason=reason),))
