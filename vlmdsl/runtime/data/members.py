"""The columns of a sample that is a set of files: members of a shard, or files beside an image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.limits import LONGEST_DESCRIPTION, Limits
from vlmdsl.runtime.data.source import BadSample, LazyColumns

__all__ = ["TEXT_SUFFIXES", "Read", "is_read", "member_columns", "read_json", "read_text"]

Read = Callable[[int], bytes]
"""Reads a file of at most that many bytes; raises `BadSample`."""

TEXT_SUFFIXES = ("txt", "text", "caption")
_READ = frozenset((*IMAGE_SUFFIXES, *TEXT_SUFFIXES, "json", "cls"))


def is_read(suffix: str) -> bool:
    """Whether a file with this lower-case ending becomes a column."""
    return suffix.rpartition(".")[2] in _READ


def member_columns(members: Mapping[str, Read], limits: Limits) -> LazyColumns:
    """The columns of a sample made of files, given by ending; images are read on access, everything else at once.

    Raises `BadSample` if a text, class or JSON object among them is damaged.
    """
    ready: dict[str, object] = {}
    later: dict[str, Callable[[], object]] = {}
    described: dict[str, object] = {}
    for suffix, read in members.items():
        name, _, last = suffix.rpartition(".")
        if last in IMAGE_SUFFIXES:
            later.setdefault(name or "image", partial(read, limits.file_bytes))
        elif last in TEXT_SUFFIXES:
            ready[name or last] = read_text(read(LONGEST_DESCRIPTION))
        elif last == "json":
            described |= _object(read_json(read(LONGEST_DESCRIPTION)), name)
        elif last == "cls":
            ready[name or last] = _class(read(LONGEST_DESCRIPTION))
    return LazyColumns(described | ready, later)


def read_text(data: bytes) -> str:
    """Text in UTF-8, with or without a byte order mark; raises `BadSample`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise BadSample("text is not UTF-8") from fault


def read_json(data: bytes | str) -> object:
    """The value of a JSON text; raises `BadSample` for what is not one, and for an object that has a key twice."""
    if len(data) > LONGEST_DESCRIPTION:
        raise BadSample("json too large")
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except UnicodeDecodeError as fault:
        raise BadSample("json is not UTF-8") from fault
    except (ValueError, RecursionError) as fault:
        raise BadSample("damaged json") from fault


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise BadSample("json object with a key twice")
    return members


def _object(value: object, name: str) -> dict[str, object]:
    return value if isinstance(value, dict) and not name else {name or "json": value}


def _class(data: bytes) -> int:
    try:
        return int(data)
    except ValueError as fault:
        raise BadSample("class is not an integer") from fault
