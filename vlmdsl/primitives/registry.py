"""The registry of primitives: the kernel's own, and those of other distributions (entry point group `vlmdsl.primitives`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from vlmdsl.primitives.spec import Primitive

__all__ = ["BrokenPlugin", "all_primitives", "broken_plugins", "register", "registered"]

_REGISTERED: dict[str, Primitive] = {}


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """An entry point that could not be loaded, its distribution, and why."""

    name: str
    distribution: str
    reason: str


def register(primitive: Primitive) -> Primitive:
    """Add a primitive; ValueError for a name that another distribution already took, naming both."""
    earlier = _REGISTERED.get(primitive.name)
    if earlier is not None and earlier.origin != primitive.origin:
        raise ValueError(
            f"primitive {primitive.name!r} of {primitive.origin} is already defined by {earlier.origin}; rename one of them"
        )
    _REGISTERED[primitive.name] = primitive
    return primitive


def registered() -> dict[str, Primitive]:
    """The primitives of the kernel and those registered so far, by name; looks for no plug-ins, which takes its time."""
    return _REGISTERED


@cache
def broken_plugins() -> tuple[BrokenPlugin, ...]:
    """Loads every installed plug-in, once; those that could not be loaded, to be reported."""
    from importlib.metadata import entry_points

    broken = []
    for entry in entry_points(group="vlmdsl.primitives"):
        try:
            entry.load()
        except Exception as error:  # somebody else's module: anything may be wrong with it, and it has to be reported
            distribution = entry.dist.name if entry.dist else "unknown"
            broken.append(BrokenPlugin(entry.name, distribution, f"{type(error).__name__}: {error}"))
    return tuple(broken)


def all_primitives() -> dict[str, Primitive]:
    """Every primitive, those of installed plug-ins included, by name."""
    broken_plugins()
    return _REGISTERED
