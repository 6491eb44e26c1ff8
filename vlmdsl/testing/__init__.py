"""Checks for our tests and for those of plug-ins; `check_primitive` is the whole test of a plug-in's similarity."""

from vlmdsl.testing.laws import check_primitive

__all__ = ["check_primitive"]
