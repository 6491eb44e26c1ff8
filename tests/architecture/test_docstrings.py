"""The examples in docstrings run and print what they say; those of public names are in `test_public_names.py`."""

from __future__ import annotations

import doctest
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import vlmdsl

TRAINS = (".train(", "Trainer(", "compare(", "overfit(", "verify(", "doctor(")
"""Examples that train or compile take seconds each; end-to-end tests call these functions."""


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in pkgutil.walk_packages(vlmdsl.__path__, "vlmdsl."):
        if module.name.rpartition(".")[2] == "__main__" or ".trackers." in module.name:
            continue
        imported = import_module(module.name)
        for test in finder.find(imported, module.name, globs=dict(vars(imported))):
            source = "".join(example.source for example in test.examples)
            if source and not any(call in source for call in TRAINS):
                yield test


def test_examples_in_docstrings_run() -> None:
    failures, count = [], 0
    for test in examples():
        count += 1
        report: list[str] = []
        if doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append).failed:
            failures.append("".join(report))
    assert count > 150
    assert not failures, "\n".join(failures)
