"""The formula of every bundled recipe can be laid out for the page of a run, and is free of LaTeX where it is in words."""

from __future__ import annotations

import re

import pytest

from vlmdsl.api import report
from vlmdsl.api.driver import build_flows
from vlmdsl.backends.latex import formula_lines
from vlmdsl.source.bundled import bundled_names

LATEX = re.compile(r"[\\$&]|\^\{")


@pytest.mark.parametrize("recipe", bundled_names())
def test_a_formula_is_laid_out_and_readable_in_words(recipe: str) -> None:
    for built in build_flows(recipe):
        drawn, words = report._formula(built)
        assert drawn.count("<g ") == len(formula_lines(built.written))
        assert words.startswith("L = ")
        assert not LATEX.search(words)
