"""Sources that are read from front to back: shards side by side, without an index of samples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vlmdsl.runtime.data.files import IndexedFile, well_formed
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.members import member_columns
from vlmdsl.runtime.data.shard_index import ending_of, sample_at, unreadable_shard
from vlmdsl.runtime.data.shards import TarSource
from vlmdsl.runtime.data.source import BadSample, Samples, Source, probed_positions
from vlmdsl.runtime.data.tar import BLOCK, DamagedTar, members_from
from vlmdsl.source.regular_files import BadFile, open_regular

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["SampleStream", "TarStream", "is_stream"]

_HEAD = 4
"""The number of shards that are indexed to inspect columns, texts and damage."""

_OF_SHARD = 2**40
"""Places in one shard, in blocks: 512 tebibytes."""


class SampleStream(Samples, Protocol):
    """Samples that are read from front to back, shard by shard.

    A sample is identified by its place, a number: `stream[place]` reads its columns. Where samples are `read_once`, only the
    process that has come by a place can read it, until `forget`.
    """

    @property
    def read_once(self) -> bool:
        """Whether samples pass by once, so that each worker process is to have shards of its own."""
        ...

    @property
    def shards(self) -> int:
        """How many shards there are; each is read by one process."""
        ...

    @property
    def head(self) -> Source:
        """Some of the samples with random access: what has to be learned of samples before the first step is learned from
        them."""
        ...

    def places(self, shard: int, start: int = 0) -> Iterator[int]:
        """The places of the samples of a shard in their order, without the first `start`. Raises `DiagnosticError` where the
        shard is damaged."""
        ...

    def forget(self, places: Iterable[int]) -> None:
        """The samples at these places are not asked for any more."""
        ...

    def count(self, shard: int) -> int:
        """The number of samples of a shard. Goes through it, if that has not been done."""
        ...

    def fingerprint(self) -> str:
        """A fingerprint of the stream, without reading it."""
        ...


def is_stream(source: object) -> TypeIs[SampleStream]:
    """Whether it is read from front to back."""
    return hasattr(source, "places")


class TarStream:
    """The samples of webdataset shards: members that follow one another and have one key, as in `TarSource`.

    Only headers are read on the way; contents when a sample is asked for. Hard links are left out, and a key that comes
    again has no number behind it.
    """

    read_once = False

    def __init__(self, paths: Sequence[Path], name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name
        self._limits = limits
        self._files = [_file(path) for path in paths]
        self._counts: dict[int, int] = {}

    @property
    def shards(self) -> int:
        return len(self._files)

    @cached_property
    def head(self) -> Source:
        chosen = [self._files[number].path for number in probed_positions(len(self._files), _HEAD)]
        source = TarSource(chosen, self.name, self._limits)
        source.remarks.append(
            f"read as a stream of {len(self._files):,} shards; remarks on the samples cover {len(chosen)} of them"
        )
        return source

    @property
    def keys(self) -> _KeysOfPlaces:
        return _KeysOfPlaces(self)

    def folder_of(self, index: int) -> str | None:
        return None

    def __getitem__(self, index: int) -> Mapping[str, object]:
        shard, block = divmod(index, _OF_SHARD)
        return member_columns(sample_at(self._files[shard], block * BLOCK)[1], self._limits)

    def key(self, place: int) -> str:
        """The key of the sample at a place; its number, if the shard cannot be read any more."""
        shard, block = divmod(place, _OF_SHARD)
        try:
            name = sample_at(self._files[shard], block * BLOCK)[0]
        except BadSample:
            name = f"@{block}"
        return f"{self._files[shard].path.stem}/{well_formed(name)}"

    def places(self, shard: int, start: int = 0) -> Iterator[int]:
        own = self._files[shard]
        count, key, endings = 0, "", set[str]()
        try:
            with own.opened() as file:
                for member in members_from(file, own.stamp[0], 0):
                    name, ending = ending_of(member.name)
                    if name and (name != key or ending in endings):
                        if count >= start:
                            yield shard * _OF_SHARD + member.header // BLOCK
                        count, key, endings = count + 1, name, set()
                    endings |= {ending} if name and ending else set()
        except BadSample as fault:
            raise unreadable_shard(own.path, fault.reason) from fault
        except (DamagedTar, OSError) as fault:
            raise unreadable_shard(own.path, str(fault)) from fault
        self._counts[shard] = count

    def forget(self, places: Iterable[int]) -> None:
        """Nothing is held."""

    def count(self, shard: int) -> int:
        if shard not in self._counts:
            for _ in self.places(shard):
                pass
        return self._counts[shard]

    def fingerprint(self) -> str:
        names = "".join(f"{file.path.name}\0{file.stamp[0]}\0" for file in self._files)
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


class _KeysOfPlaces:
    """The keys of the samples of a stream, by their places."""

    def __init__(self, stream: TarStream) -> None:
        self._stream = stream

    def __getitem__(self, place: int, /) -> str:
        return self._stream.key(place)


def _file(path: Path) -> IndexedFile:
    try:
        with open_regular(path) as file:
            return IndexedFile.of(path, os.fstat(file.fileno()), "shard")
    except BadFile as fault:
        raise unreadable_shard(path, fault.reason) from fault
