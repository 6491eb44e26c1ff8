"""Importing this module registers the whole kernel: one line a family."""

from vlmdsl.primitives import encoding, matrices, scalars, similarities, state, targets, views

__all__ = ["FAMILIES"]

FAMILIES = (views, encoding, similarities, matrices, targets, scalars, state)
