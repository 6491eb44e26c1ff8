"""The public surface: few names, each with an example in its docstring that runs."""

from __future__ import annotations

import doctest
import inspect

import pytest

import vlmdsl

MOST_NAMES = 20


def test_there_are_few_public_names() -> None:
    assert 0 < len(vlmdsl.__all__) <= MOST_NAMES
    assert sorted(set(vlmdsl.__all__)) == sorted(vlmdsl.__all__)


@pytest.mark.parametrize("name", vlmdsl.__all__)
def test_the_example_of_a_public_name_runs(name: str) -> None:
    thing = getattr(vlmdsl, name)
    if not callable(thing):
        assert name == "__version__"
        return
    documentation = inspect.getdoc(thing) or ""
    module = inspect.getmodule(thing)
    assert module is not None
    example = doctest.DocTestParser().get_doctest(documentation, dict(vars(module)), f"vlmdsl.{name}", module.__file__, None)
    assert example.examples, f"vlmdsl.{name} has no example"
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
