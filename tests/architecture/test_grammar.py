"""The grammar is one that Lark accepts under its strict mode: no conflict, no two terminals that match the same text."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmdsl.syntax.grammar import cache_file, load_grammar

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.vlo"))


def test_the_grammar_is_strict() -> None:
    assert load_grammar(strict=True).options.strict


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT / "recipes").as_posix())
def test_the_strict_parser_reads_every_recipe(path: Path) -> None:
    tree = load_grammar(strict=True).parse(path.read_text(encoding="utf-8"), start="module")
    assert tree.children


def test_the_tables_are_kept_where_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mine = cache_file("a grammar")
    assert mine is not None
    assert Path(mine).parent == tmp_path / "vlmdsl"
    assert mine != cache_file("another grammar")
    (tmp_path / "vlmdsl").chmod(0o777)
    assert cache_file("a grammar") is None
