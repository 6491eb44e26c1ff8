"""Checks for our tests and for those of plug-ins.

`check_primitive` is the whole test of a plug-in's similarity, criterion or target. For tests of their own,
`example_features` makes the inputs of a compiled objective, `example_modules` the modules that it applies to features,
and `excluded_entries` says which entries of the inputs must change nothing.
"""

from vlmdsl.testing.laws import check_primitive, example_features, example_modules, excluded_entries

__all__ = ["check_primitive", "example_features", "example_modules", "excluded_entries"]
