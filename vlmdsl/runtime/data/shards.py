"""Webdataset tar shards with random access: an index of the members, read once; samples are then read from their place."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import NamesWithDots
from vlmdsl.runtime.data.files import well_formed
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.keys import Fingerprint, Keys, Repetitions, number_repetitions
from vlmdsl.runtime.data.left_out import LeftOut, shortened
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.members import member_columns
from vlmdsl.runtime.data.shard_index import Endings, ShardIndex, index_shard
from vlmdsl.runtime.data.source import probed_columns
from vlmdsl.source import Span

__all__ = ["TarSource"]

_MOST_IMAGE_COLUMNS = 8
"""Longer endings of images, none of which most samples have: beyond this many, names with dots are to blame."""


class TarSource:
    """The samples of one or several shards: members with the same key, in the order in which the keys come.

    The key of a sample is `SHARD/KEY`. An image member is the column `image`; `txt`, `text` and `caption` members are texts
    under these names; the keys of a `json` object are columns; `cls` is an integer. A longer ending names its column:
    `7.depth.png` is the image column `depth`. Other members are left out, which `remarks` say. A key that comes again with
    an ending that its sample has is another sample, `KEY#2`.

    In memory is where each sample begins (4 bytes), and its name if that takes few bytes, compressed; all else is read from
    the headers.
    """

    def __init__(self, paths: Sequence[Path], name: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name or ", ".join(str(path) for path in paths)
        self.class_names: tuple[str, ...] | None = None
        self._limits = limits
        self._shards: list[ShardIndex] = []
        self._stems = [path.stem for path in paths]
        self._last: tuple[int, str] = (-1, "")
        """The sample that was read last, by its index, and its name, for which it is usually asked next."""
        left_out, endings, digest = LeftOut(), Endings(), Fingerprint()
        repeat = len(set(self._stems)) < len(self._stems)  # keys of shards of different names differ
        for path in paths:
            index, samples = index_shard(path, left_out, endings)
            self._shards.append(index)
            repeat |= samples.repeat
            for own in samples.names:
                digest.add(f"{path.stem}/{own}")
        self._first = [0, *itertools.accumulate(map(len, self._shards))]
        self._fingerprint = None if repeat else digest.hexdigest()
        self._repetitions = Repetitions()
        if repeat:
            self._repetitions = number_repetitions(self.keys)
        rare = _check_names(endings, len(self), self.name)
        self.remarks: list[str] = left_out.lines()
        if rare:
            self.remarks.append(
                f"few samples have images that end in {', '.join(rare)}: a sample's name ends at its first dot"
            )
        self.remarks += self._on_repeated()
        self.columns: tuple[str, ...] = probed_columns(self)

    @property
    def keys(self) -> Keys:
        return Keys(
            len(self), self._key, lambda: self._repetitions.unique_in_order(self._keys_in_order()), self._fingerprint
        )

    def __len__(self) -> int:
        return self._first[-1]

    def folder_of(self, index: int) -> str | None:
        return None

    def __getitem__(self, index: int) -> Mapping[str, object]:
        shard = self._shard_of(index)
        name, members = self._shards[shard].members(index - self._first[shard])
        self._last = (index, name)
        return member_columns(members, self._limits)

    def _shard_of(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return bisect_right(self._first, index) - 1

    def _key(self, index: int) -> str:
        shard = self._shard_of(index)
        last, name = self._last
        if last != index:
            name = self._shards[shard].name(index - self._first[shard])
        return self._repetitions.unique(index, f"{self._stems[shard]}/{name}")

    def _keys_in_order(self) -> Iterator[str]:
        for stem, shard in zip(self._stems, self._shards, strict=True):
            yield from (f"{stem}/{name}" for name in shard.names())

    def _on_repeated(self) -> Iterable[str]:
        """What is to be said of keys that come again."""
        numbered = self._repetitions.indices
        if len(numbered):
            shown = ", ".join(shortened(self.keys[index]) for index in numbered[:3].tolist())
            more = ", ..." if len(numbered) > 3 else ""
            yield f"repeated keys are separate samples ({len(numbered):,}: {shown}{more})"


def _check_names(endings: Endings, samples: int, name: str) -> list[str]:
    """The endings with dots of images that few samples have. `DiagnosticError` where they are so many that files of
    different samples must have been taken for columns of one, for a dot in their names."""
    rare = [
        ending
        for ending, count in endings.counts.items()
        if ending.rpartition(".")[2] in IMAGE_SUFFIXES and (2 * count < samples or samples == 1)
    ]
    if len(rare) > _MOST_IMAGE_COLUMNS:
        key = shortened(well_formed(endings.first[rare[0]]))
        raise DiagnosticError((_names_with_dots(name, key, [well_formed(shortened(one)) for one in rare]),))
    return [well_formed(shortened(ending)) for ending in rare]


def _names_with_dots(name: str, key: str, suffixes: list[str]) -> Diagnostic:
    shown = ", ".join(f"`{suffix}`" for suffix in suffixes[:3])
    return NamesWithDots.at(
        Span("<command line>", 0, 0),
        name=name,
        count=len(suffixes),
        notes=(f"extensions such as {shown}; the sample `{key}` has the first of them",),
        help=("rename the members so that only extensions have dots: `img-v0.jpg` instead of `img.v0.jpg`",),
    )
