from __future__ import annotations

import re
from pathlib import Path

import pytest
from lark.exceptions import UnexpectedInput

from vlmdsl._resources import root
from vlmdsl.source import SourceText
from vlmdsl.syntax import parse
from vlmdsl.syntax.grammar import KEYWORDS, load_grammar

GRAMMAR = (root("grammar") / "vlo.lark").read_text(encoding="utf-8")
SPEC = (root("grammar") / "SPEC.md").read_text(encoding="utf-8")


def test_the_grammar_has_no_conflicts_and_no_overlapping_terminals() -> None:
    load_grammar(strict=True).parse("vlo 1\nminimize x\n", start="module")


def test_the_reserved_words_are_the_same_everywhere() -> None:
    reserved = re.search(r"NAME: /\(\?!\(([a-z|]+)\)", GRAMMAR)
    assert reserved is not None
    assert tuple(reserved[1].split("|")) == KEYWORDS
    for word in KEYWORDS:
        assert re.search(rf"^{word.upper()}: +/{word}\(\?!", GRAMMAR, re.MULTILINE)
        assert f"`{word}`" in SPEC


def test_a_word_of_the_language_does_not_begin_another() -> None:
    with pytest.raises(UnexpectedInput):
        load_grammar().parse("let x = 3 inner", start="module")


def test_every_program_of_the_specification_parses() -> None:
    programs = re.findall(r"```vlo\n(.*?)```", SPEC, re.DOTALL)
    assert len(programs) >= 5
    for program in programs:
        assert parse(SourceText("SPEC.md", program))[1] == [], program


def test_every_bundled_recipe_parses() -> None:
    recipes = sorted(Path(str(root("recipes"))).rglob("*.vlo"))
    assert len(recipes) >= 8
    for recipe in recipes:
        assert parse(SourceText(recipe.name, recipe.read_text(encoding="utf-8")))[1] == [], recipe
