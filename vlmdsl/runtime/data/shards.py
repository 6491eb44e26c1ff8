"""Webdataset tar shards with random access: an index of the members, read once; samples are then read from their place."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import NamesWithDots, ShardUnreadable
from vlmdsl.runtime.data.files import well_formed
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.left_out import LeftOut, shortened
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.members import is_read, member_columns
from vlmdsl.runtime.data.source import BadSample, probed_columns, unique_keys
from vlmdsl.runtime.data.tar import DamagedTar, Member, members_of
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, open_regular

__all__ = ["TarSource"]

_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""Key and ending of a member's name: the key ends at the first dot of the last part; hidden files are no members."""

_AGAIN = re.compile(r"#\d+\Z")

_MOST_IMAGE_COLUMNS = 8
"""Longer endings of images, none of which most samples have: beyond this many, names with dots are to blame."""

_PLACE = Span("<command line>", 0, 0)

Stamp = tuple[int, int]
"""Size and time of the last change of a shard: what tells that it is the one that was indexed."""


class TarSource:
    """The samples of one or several shards: members with the same key, in the order in which the keys come.

    The key of a sample is `SHARD/KEY`. An image member is the column `image`; `txt`, `text` and `caption` members are texts
    under these names; the keys of a `json` object are columns; `cls` is an integer. A longer ending names its column:
    `7.depth.png` is the image column `depth`. Other members are left out, which `remarks` say. A key that comes again with
    an ending that its sample has is another sample, `KEY#2`.
    """

    def __init__(self, paths: Sequence[Path], name: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name or ", ".join(str(path) for path in paths)
        self.keys: list[str] = []
        self.class_names: tuple[str, ...] | None = None
        self._paths = list(paths)
        self._limits = limits
        self._stamps: list[Stamp] = []
        self._suffixes: list[str] = []
        # Flat arrays: shards of millions of samples are indexed in a few bytes a member.
        self._shard_of_sample = array("i")
        self._first_member = array("q", [0])
        self._suffix, self._offset, self._length = array("i"), array("q"), array("q")
        left_out = LeftOut()
        for number, path in enumerate(paths):
            self._index(number, path, left_out)
        self.keys = unique_keys(self.keys)
        rare = self._check_names()
        again = [key for key in self.keys if _AGAIN.search(key)]
        self.remarks: list[str] = left_out.lines()
        if rare:
            self.remarks.append(
                f"few samples have images that end in {', '.join(rare)}: a sample's name ends at its first dot"
            )
        if again:
            shown = ", ".join(map(shortened, again[:3])) + (", ..." if len(again) > 3 else "")
            self.remarks.append(f"keys that come again are samples of their own ({len(again):,}: {shown})")
        self.columns: tuple[str, ...] = probed_columns(self)

    def __len__(self) -> int:
        return len(self.keys)

    def folder_of(self, index: int) -> str | None:
        return None

    def __getitem__(self, index: int) -> Mapping[str, object]:
        shard = self._shard_of_sample[index]
        path, stamp = self._paths[shard], self._stamps[shard]
        members = {
            self._suffixes[self._suffix[member]]: partial(_read, path, stamp, self._offset[member], self._length[member])
            for member in range(self._first_member[index], self._first_member[index + 1])
        }
        return member_columns(members, self._limits)

    def _index(self, number: int, path: Path, left_out: LeftOut) -> None:
        samples = _Samples(self._suffixes)
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                for member in members_of(file, status.st_size, left_out, path.name):
                    match = _MEMBER.fullmatch(member.name)
                    if match is None:
                        left_out.add("members that are hidden or have no ending", f"{path.name}: {member.name}")
                    elif not is_read(match[2].lower()):
                        left_out.add(f"`.{shortened(well_formed(match[2].lower()))}` members", f"{path.name}: {member.name}")
                        samples.of(match[1])
                    else:
                        samples.add(match[1], match[2].lower(), member)
        except BadFile as fault:
            raise _unreadable(path, fault.reason) from fault
        except (DamagedTar, OSError) as fault:
            raise _unreadable(path, str(fault)) from fault
        self._stamps.append((status.st_size, status.st_mtime_ns))
        self._take(number, path, samples)

    def _take(self, number: int, path: Path, samples: _Samples) -> None:
        """The samples of one shard, behind those of the others."""
        self.keys.extend(f"{path.stem}/{well_formed(key)}" for key in samples.keys)
        self._shard_of_sample.extend([number] * len(samples.keys))
        owners = np.asarray(samples.owner, dtype=np.int64)
        start = self._first_member[-1]
        ends = start + np.cumsum(np.bincount(owners, minlength=len(samples.keys)))
        self._first_member.extend(ends.astype(np.int64).tolist())
        order = np.argsort(owners, kind="stable")
        for known, new in ((self._suffix, samples.suffix), (self._offset, samples.offset), (self._length, samples.length)):
            known.extend(np.asarray(new)[order].tolist())

    def _check_names(self) -> list[str]:
        """The endings with dots of images that few samples have. `DiagnosticError` where they are so many that files of
        different samples must have been taken for columns of one, for a dot in their names."""
        counts = np.bincount(np.asarray(self._suffix, dtype=np.int64), minlength=len(self._suffixes))
        rare = [
            suffix
            for suffix, count in zip(self._suffixes, counts.tolist(), strict=True)
            if "." in suffix and suffix.rpartition(".")[2] in IMAGE_SUFFIXES and (2 * count < len(self) or len(self) == 1)
        ]
        if len(rare) > _MOST_IMAGE_COLUMNS:
            example = np.flatnonzero(np.asarray(self._suffix) == self._suffixes.index(rare[0]))[0]
            sample = int(np.searchsorted(np.asarray(self._first_member), example, side="right")) - 1
            key = shortened(self.keys[sample])
            raise DiagnosticError((_names_with_dots(self.name, key, [well_formed(shortened(one)) for one in rare]),))
        return [well_formed(shortened(suffix)) for suffix in rare]


class _Samples:
    """The samples of one shard while it is indexed: the key of each, and sample, ending, place and length of each member."""

    def __init__(self, suffixes: list[str]) -> None:
        self.keys: list[str] = []
        self.owner, self.suffix, self.offset, self.length = array("q"), array("i"), array("q"), array("q")
        self._suffixes = suffixes
        self._number_of = {suffix: number for number, suffix in enumerate(suffixes)}
        self._sample_of: dict[str, int] = {}
        self._present: list[int] = []
        """For each sample the set of its endings, as the bits of a number."""

    def of(self, key: str) -> int:
        """The sample of a key, perhaps a new one."""
        return self._sample_of[key] if key in self._sample_of else self._new(key, key)

    def _new(self, key: str, name: str) -> int:
        self._sample_of[key] = len(self.keys)
        self.keys.append(name)
        self._present.append(0)
        return self._sample_of[key]

    def add(self, key: str, suffix: str, member: Member) -> None:
        """A member of the sample of a key, or of a new one if that sample has such a member."""
        number = self._number_of.get(suffix)
        if number is None:
            number = self._number_of[suffix] = len(self._suffixes)
            self._suffixes.append(suffix)
        sample = self.of(key)
        if self._present[sample] >> number & 1:
            repetition = self.keys[sample].removeprefix(key).removeprefix("#") or "1"
            sample = self._new(key, f"{key}#{int(repetition) + 1}")
        self._present[sample] |= 1 << number
        self.owner.append(sample)
        self.suffix.append(number)
        self.offset.append(member.offset)
        self.length.append(member.size)


def _unreadable(path: Path, reason: str) -> DiagnosticError:
    return DiagnosticError((ShardUnreadable.at(_PLACE, path=path, reason=reason),))


def _names_with_dots(name: str, key: str, suffixes: list[str]) -> Diagnostic:
    shown = ", ".join(f"`{suffix}`" for suffix in suffixes[:3])
    return NamesWithDots.at(
        _PLACE,
        name=name,
        count=len(suffixes),
        notes=(f"endings such as {shown}; the sample `{key}` has the first of them",),
        help=("rename the members so that only endings have dots: `img-v0.jpg` instead of `img.v0.jpg`",),
    )


def _read(path: Path, stamp: Stamp, offset: int, length: int, most: int) -> bytes:
    # Opened anew each time: nothing is shared between the processes that load.
    if length > most:
        raise BadSample("file too large")
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as fault:
        raise BadSample("unreadable file") from fault
    try:
        status = os.fstat(file)
        if (status.st_size, status.st_mtime_ns) != stamp:
            raise BadSample("shard changed while it was in use")
        data = os.pread(file, length, offset)
    except OSError as fault:
        raise BadSample("unreadable file") from fault
    finally:
        os.close(file)
    if len(data) < length:
        raise BadSample("unreadable file")
    return data
