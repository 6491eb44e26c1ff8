"""The registry of primitives: the kernel's own, and those of other distributions (entry point group `vlmdsl.primitives`)."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from vlmdsl.primitives.spec import Primitive

__all__ = ["all_primitives", "register", "registered"]

_REGISTERED: dict[str, Primitive] = {}


def register(primitive: Primitive) -> Primitive:
    """Add a primitive; a name that another distribution already took is an error that names both."""
    known = _REGISTERED.get(primitive.name)
    if known is not None and known.origin != primitive.origin:
        raise ValueError(
            f"primitive {primitive.name!r} of {primitive.origin} is already defined by {known.origin}; rename one of them"
        )
    _REGISTERED[primitive.name] = primitive
    return primitive


def registered() -> dict[str, Primitive]:
    """The primitives registered so far by the kernel and by `@vlmdsl.primitive`."""
    return _REGISTERED


@cache
def _load_entry_points() -> None:
    for entry in entry_points(group="vlmdsl.primitives"):
        entry.load()


def all_primitives() -> dict[str, Primitive]:
    """Every primitive, those of installed plug-ins included, by name."""
    from vlmdsl.primitives import kernel  # noqa: F401 - importing it registers the kernel

    _load_entry_points()
    return _REGISTERED
