"""Values of a call in Python as those that YAML has: texts, numbers, truth values, null, tuples and mappings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from os import PathLike, fsdecode
from pathlib import Path
from typing import TypeAlias

__all__ = ["DataSources", "as_setting", "listed"]

DataSources: TypeAlias = str | Path | Iterable[str | Path]
"""Specifications of data, or a single one."""

_DEEPEST = 32
"""How deep lists and mappings are nested at most; those further in, or a list that holds itself, become texts."""


def as_setting(value: object, depth: int = 0) -> object:
    """The value of a setting: a tuple for a list, another sequence, an iterator or an array (of numpy or torch), a text for
    a path, a Python number for one of numpy or torch; the same in mappings, whose keys become texts. Others are unchanged.

    >>> from pathlib import Path
    >>> as_setting({"val": [Path("a.tar"), "b.tar"], "betas": (number for number in (0.9, 0.98))})
    {'val': ('a.tar', 'b.tar'), 'betas': (0.9, 0.98)}
    """
    if isinstance(value, str | bytes | bytearray):
        return value
    if depth > _DEEPEST:
        return repr(value)
    if isinstance(value, PathLike):
        return fsdecode(value)
    if isinstance(value, Mapping):
        return {str(name): as_setting(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, Sequence | Iterator | KeysView | ValuesView):
        return tuple(as_setting(item, depth + 1) for item in value)
    plain = getattr(value, "tolist", None)  # an array, or a number of numpy or torch
    return as_setting(plain(), depth + 1) if callable(plain) and hasattr(value, "shape") else value


def listed(value: object) -> tuple[object, ...]:
    """Several values as `as_setting` gives them, of a list or of what stands alone for a list of one; None: nothing.

    >>> from pathlib import Path
    >>> listed("shapes"), listed([Path("a.tar"), "b.tar"]), listed(None)
    (('shapes',), ('a.tar', 'b.tar'), ())
    """
    own = as_setting(value)
    return own if isinstance(own, tuple) else () if own is None else (own,)
