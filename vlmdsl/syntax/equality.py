"""Equality of trees without their places."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from vlmdsl.syntax import tree

__all__ = ["same_tree"]


def same_tree(first: tree.Module, second: tree.Module) -> bool:
    """Whether two modules are equal: spans and plain comments are ignored, and a missing edition is edition 1."""
    waiting: list[tuple[object, object]] = [(_statements(first), _statements(second))]
    while waiting:
        left, right = waiting.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, tuple) and isinstance(right, tuple):
            if len(left) != len(right):
                return False
            waiting.extend(zip(left, right, strict=True))
        elif is_dataclass(left):
            waiting.extend(
                (getattr(left, field.name), getattr(right, field.name)) for field in fields(left) if field.name != "span"
            )
        elif left != right:
            return False
    return True


def _statements(module: tree.Module) -> tuple[tree.Item, ...]:
    return tuple(item for item in module.items if not (isinstance(item, tree.Edition) and item.version == 1))
