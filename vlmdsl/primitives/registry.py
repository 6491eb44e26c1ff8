"""The registry of primitives: the built-in ones, and those of other distributions (entry point group
`vlmdsl.primitives`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import NamedTuple

from vlmdsl.primitives.kernel import HOMES
from vlmdsl.primitives.spec import Primitive

__all__ = ["BrokenPlugin", "all_primitives", "broken_plugins", "register", "registered"]


class _Primitives(Mapping[str, Primitive]):
    """Primitives by name. A family of the kernel is imported when one of its names is first looked up.

    All names are known from the start: `name in primitives` and `list(primitives)` import nothing.
    """

    def __init__(self) -> None:
        self.registered: dict[str, Primitive] = {}

    def __getitem__(self, name: str) -> Primitive:
        if name not in self.registered and name in HOMES:
            import_module(f"vlmdsl.primitives.{HOMES[name]}")
        return self.registered[name]

    def __contains__(self, name: object) -> bool:
        return name in HOMES or name in self.registered

    def __iter__(self) -> Iterator[str]:
        return iter(HOMES | self.registered)

    def __len__(self) -> int:
        return len(HOMES | self.registered)


_PRIMITIVES = _Primitives()


class BrokenPlugin(NamedTuple):
    """An entry point that could not be loaded, its distribution, and why."""

    name: str
    distribution: str
    reason: str


def register(primitive: Primitive) -> Primitive:
    """Add a primitive; ValueError for a name that another distribution already took, naming both."""
    earlier = _PRIMITIVES.get(primitive.name)
    if earlier is not None and earlier.origin != primitive.origin:
        raise ValueError(
            f"primitive {primitive.name!r} of {primitive.origin} is already defined by {earlier.origin}; rename one of them"
        )
    _PRIMITIVES.registered[primitive.name] = primitive
    return primitive


def registered() -> Mapping[str, Primitive]:
    """The primitives of the kernel and those registered so far, by name; does not load plug-ins, which takes time."""
    return _PRIMITIVES


@cache
def broken_plugins() -> tuple[BrokenPlugin, ...]:
    """Load every installed plug-in, once, and return those that could not be loaded."""
    from importlib.metadata import entry_points

    broken = []
    for entry in entry_points(group="vlmdsl.primitives"):
        try:
            entry.load()
        except Exception as error:  # third-party code: it may raise anything, which has to be reported
            distribution = entry.dist.name if entry.dist else "unknown"
            broken.append(BrokenPlugin(entry.name, distribution, f"{type(error).__name__}: {error}"))
    return tuple(broken)


def all_primitives() -> Mapping[str, Primitive]:
    """Every primitive, those of installed plug-ins included, by name."""
    broken_plugins()
    return _PRIMITIVES
