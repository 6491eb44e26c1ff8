"""`record`: an immutable data class that costs little to define.

Each `@dataclass(frozen=True, slots=True)` writes and compiles six methods when its module is imported, a quarter of a
millisecond a class: for the hundred classes behind `vlmdsl check` a tenth of the whole command. A record compiles its
`__init__` only; comparison, hash and `repr` are closures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TypeVar, dataclass_transform

__all__ = ["record"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A class decorator: fields, `__match_args__`, `replace` and `asdict` are those of `dataclass(frozen=True, slots=True)`.

    Equal are records of one class with equal fields; `field(hash=False)` and `field(compare=False)` mean what they do there.
    Immutability is what the type checker holds everybody to: nothing is checked when an attribute is set. A method that the
    class itself defines is kept.

    >>> @record
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, 0), len({Point(1), Point(1)})
    (Point(x=1, y=0), True, 1)
    """
    made = dataclass(eq=False, repr=False, slots=True)(cls)
    declared = fields(made)  # type: ignore[arg-type]  # what `dataclass` returns is one
    shown = [each.name for each in declared if each.repr]
    compared = _values_of(each.name for each in declared if each.compare)
    hashed = _values_of(each.name for each in declared if (each.compare if each.hash is None else each.hash))

    def equal(self: object, other: object) -> bool:
        return compared(self) == compared(other) if type(other) is type(self) else NotImplemented

    def digest(self: object) -> int:
        return hash(hashed(self))

    def described(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    for name, method in (("__eq__", equal), ("__hash__", digest), ("__repr__", described)):
        if name not in cls.__dict__ or cls.__dict__[name] is None:
            setattr(made, name, method)
    return made


def _values_of(names: Iterable[str]) -> Callable[[object], object]:
    """Reads these attributes of an object, as something comparable and hashable."""
    kept = tuple(names)
    return attrgetter(*kept) if kept else lambda _: ()
