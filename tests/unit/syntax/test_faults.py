"""Which fault a malformed text has, and where."""

from __future__ import annotations

import pytest

from vlmdsl.diagnostics import apply_safe_fixes
from vlmdsl.source import SourceText
from vlmdsl.source.limits import MAXIMUM_BYTES, MAXIMUM_DIAGNOSTICS
from vlmdsl.syntax import parse, read_source

CASES = [
    ("minimise a\n", "V0122", "minimise"),
    ("Minimize a\n", "V0122", "Minimize"),
    ("tau = 3\nminimize tau", "V0123", "tau"),
    ("f(a) = a\nminimize f(1)", "V0123", "f"),
    ("let tau learned(1)\nminimize tau", "V0124", "learned"),
    ("let x: Scalar = 3\nminimize x", "V0124", ":"),
    ("def f(a): a\nminimize f(1)", "V0124", ":"),
    ("def f = 3\nminimize f", "V0114", "="),
    ("let a =\nminimize b", "V0116", ""),
    ("minimize a +", "V0116", ""),
    ("minimize (a + )", "V0116", ")"),
    ('use "./x.vlo"\nminimize a', "V0116", ""),
    ("cite\nminimize a", "V0116", ""),
    ("minimize", "V0116", ""),
    ("minimize a.", "V0116", ""),
    ("minimize a\n  + b\n", "V0117", "+"),
    ("minimize a *\n  b\n", "V0117", "*"),
    ("minimize {\n  x: a\n    + b\n}", "V0117", "+"),
    ("minimize a < b < c", "V0118", "<"),
    ("minimize f(a == b != c)", "V0118", "!="),
    ("minimize f(x=1, a)", "V0119", "a"),
    ("minimize f(x=1, x=2)", "V0120", "x"),
    ("def f(a, a) = a\nminimize f(1)", "V0120", "a"),
    ("recipe r(k = 1, a: Image)\nminimize a", "V0121", "a: Image"),
    ("recipe r(image)\nminimize image", "V0135", "image"),
    ("recipe r(a: Text[1.5])\nminimize a", "V0134", "1.5"),
    ("recipe r(a: Image{2k steps})\nminimize a", "V0134", "2k steps"),
    ("minimize f(a b)", "V0115", "b"),
    ("recipe r(a: Image b: Text)\nminimize a", "V0115", "b"),
    ("def f(a) =\nlet s = a in\ns b\nminimize f(1)", "V0114", "b"),
    ("minimize f(a, , b)", "V0114", ","),
    ("minimize a b", "V0114", "b"),
    ("minimize [a, b]", "V0114", "["),
    ("x: f(a)", "V0114", ":"),
    ("let a = 1 let b = 2\nminimize a", "V0114", "let"),
    ("minimize x.3", "V0114", ".3"),
    ("minimize f(a", "V0112", "("),
    ("minimize {\n  x: f(a\n  y: b\n}\n", "V0112", "("),
    ("minimize f(a))", "V0113", ")"),
    ("minimize f(a]", "V0113", "]"),
    ("minimize {\n  x: f(a))\n}", "V0113", ")"),
    ("let let = 3\nminimize a", "V0125", "let"),
    ("minimize f(encoder=a)", "V0125", "encoder"),
    ("minimize {\n  a\n}", "V0133", "a"),
    ("minimize {\n  x = a\n}", "V0133", "x = a"),
    ("minimize { }", "V0131", "minimize { }"),
    ("vlo 7\nminimize a", "V0126", "7"),
    ("vlo 1.0\nminimize a", "V0126", "1.0"),
    ("let a = 1\nvlo 1\nminimize a", "V0127", "vlo 1"),
    ("vlo 1\nvlo 1\nminimize a", "V0128", "vlo"),
    ("recipe r(a: Image)\nrecipe s(a: Image)\nminimize a", "V0128", "recipe"),
    ("", "V0129", ""),
    ("vlo 1\n# nothing\n", "V0129", ""),
    ("let a = 1\n", "V0130", ""),
    ("let a = 1\na\n", "V0130", "a"),
    ("minimize a\nb\n", "V0132", "b"),
    ("minimize a × b", "V0104", "×"),
    ("minimize a\u200b", "V0104", "\u200b"),
    ("minimize a\x00", "V0104", "\x00"),
    ("minimize a % b", "V0104", "%"),
    ("minimize f('a b')", "V0105", "'a b'"),
    ("minimize f(“a”)", "V0105", "“a”"),
    ('cite "abc\nminimize a', "V0106", '"abc'),
    ('minimize { "', "V0106", '"'),
    ('minimize {\n  a: f(b, c="sum)\n}', "V0106", '"sum)'),
    ('minimize { a: f("', "V0106", '"'),
    ('minimize { a: f(b[") }', "V0106", '") }'),
    ("minimize { a: “", "V0105", "“"),
    ('recipe r(a: Image)\ncite "a\\qb"\nminimize a', "V0107", "\\q"),
    ('recipe r(a: Image)\ncite "\\ud800"\nminimize a', "V0107", "\\ud800"),
    ("minimize 1_000 * a", "V0108", "1_000"),
    ("minimize 1. * a", "V0108", "1."),
    ("minimize 0x10 * a", "V0108", "0x10"),
    ("minimize 1e999 * a", "V0109", "1e999"),
    ("minimize 1e-999 * a", "V0109", "1e-999"),
    ("minimize 9007199254740993000 * a", "V0109", "9007199254740993000"),
    ("minimize f(10 parsecs)", "V0110", "parsecs"),
    ("minimize f(10step)", "V0110", "step"),
    ("minimize f(10  steps)", "V0110", "steps"),
    ("minimize 2 tau", "V0110", "tau"),
    ("minimize a ** 2", "V0111", "**"),
    ("let a := 2\nminimize a", "V0111", ":="),
    ("minimize a;", "V0111", ";"),
    ("import torch\nminimize a", "V0111", "import"),
    ("minimize a if b else c", "V0111", "if"),
    ("minimize not a", "V0111", "not"),
    ("minimize f(lambda x: x)", "V0111", "lambda"),
    ("for x in y:\n  minimize x", "V0111", "for"),
    ("minimize a and b", "V0111", "and"),
]


@pytest.mark.parametrize(("text", "code", "place"), CASES, ids=[repr(text)[:40] for text, _, _ in CASES])
def test_one_fault_with_its_place(text: str, code: str, place: str) -> None:
    source = SourceText("mine.vlo", text)
    _, faults = parse(source)
    assert [fault.code for fault in faults[:1]] == [code]
    assert source.slice(faults[0].primary.span) == place
    if not place and text:
        assert faults[0].primary.span.start in (0, len(text.split("\n")[0]), len(text.rstrip("\n")))
    assert len(faults) == 1 or text.startswith("for")


FIXED = [
    ("minimise a\n", "minimize a\n"),
    ("tau = 3\nminimize tau", "let tau = 3\nminimize tau"),
    ("f(a) = a\nminimize f(1)", "def f(a) = a\nminimize f(1)"),
    ("let a 3\nminimize a", "let a = 3\nminimize a"),
    ("let a == 3\nminimize a", "let a = 3\nminimize a"),
    ("def f(a): a\nminimize f(1)", "def f(a) = a\nminimize f(1)"),
    ("minimize {\n  x = a\n}", "minimize {\n  x: a\n}"),
    ("let a = 1\na\n", "let a = 1\nminimize a\n"),
    ("minimize f(‘a b’) × .5", 'minimize f("a b") * 0.5'),
    ("minimize 1_000 * a + 2. * b", "minimize 1000 * a + 2.0 * b"),
    ("minimize f(10K)", "minimize f(10k)"),
]


@pytest.mark.parametrize(("text", "fixed"), FIXED)
def test_safe_fixes_make_a_program_without_faults(text: str, fixed: str) -> None:
    result = apply_safe_fixes(text, "mine.vlo", parse(SourceText("mine.vlo", text))[1])
    assert result == fixed
    assert parse(SourceText("mine.vlo", result))[1] == []


def test_a_guess_is_not_applied() -> None:
    (fault,) = parse(SourceText("mine.vlo", "minimize f(a b)"))[1]
    assert fault.fix is not None
    assert not fault.fix.safe


def test_independent_faults_are_reported_at_once_in_the_order_of_the_text() -> None:
    text = """\
recipe mine(image: Image text: Text)
cite 'x'
let a = f(1
tau = 3
let b = 2 parsecs + 1e999
use c d
minimize {
  x: a b
  y = 'z' + .5
  w: f(a))
}
"""
    _, faults = parse(SourceText("mine.vlo", text))
    assert [fault.code for fault in faults] == ["V0115", "V0105", "V0112", "V0110", "V0114", "V0105", "V0108"]
    _, faults = parse(SourceText("mine.vlo", text.replace("f(a))", "f(a)").replace("f(1\n", "f(1)\n")))
    assert [fault.code for fault in faults] == ["V0115", "V0105", "V0123", "V0110", "V0114", "V0114", "V0105", "V0108"]


def test_a_failed_statement_starts_no_second_message() -> None:
    for text in ("recipe r(a Image)\nminimize a", "vlo one\nminimize a", "minimise a", "minimize (a"):
        assert len(parse(SourceText("mine.vlo", text))[1]) == 1


def test_an_edition_too_new_says_which_is_known() -> None:
    (fault,) = parse(SourceText("mine.vlo", "vlo 2\nminimize a"))[1]
    assert fault.message == "this version of vlmdsl supports editions of the language up to 1"


@pytest.mark.parametrize(
    "text", ["(" * 101 + "a" + ")" * 101, "-" * 101 + "a", "let a = b in " * 101 + "a", " + ".join(["a"] * 102)]
)
def test_nesting_is_bounded(text: str) -> None:
    assert [fault.code for fault in parse(SourceText("mine.vlo", text))[1]] == ["V0103"]


@pytest.mark.parametrize(
    "text", ["(" * 100 + "a" + ")" * 100, "-" * 100 + "a", "let a = b in " * 100 + "a", " + ".join(["a"] * 101)]
)
def test_nesting_up_to_the_bound_is_fine(text: str) -> None:
    assert parse(SourceText("mine.vlo", text))[1] == []


def test_sizes_are_bounded() -> None:
    assert [fault.code for fault in parse(SourceText("mine.vlo", "#" * (MAXIMUM_BYTES + 1)))[1]] == ["V0102"]
    assert parse(SourceText("mine.vlo", "a" * 1000 + "#" * (MAXIMUM_BYTES - 1000)))[1] == []
    assert [fault.code for fault in parse(SourceText("mine.vlo", "é" * (MAXIMUM_BYTES // 2 + 1)))[1]] == ["V0102"]
    assert [fault.code for fault in parse(SourceText("mine.vlo", "let a = 1\n" * 10_000))[1]] == ["V0102"]
    assert len(parse(SourceText("mine.vlo", "a b\n" * 1_000))[1]) == MAXIMUM_DIAGNOSTICS


def test_bytes_become_text() -> None:
    source, faults = read_source("\ufeffminimize a\r\n# é\r".encode(), "mine.vlo")
    assert (source.text, faults) == ("minimize a\n# é\n", [])


@pytest.mark.parametrize(
    ("data", "code", "place"),
    [(b"minimize \xff", "V0101", 9), ("é".encode() + b"\xc3(", "V0101", 1), (b"a" * (MAXIMUM_BYTES + 1), "V0102", 0)],
)
def test_bytes_that_are_not_a_recipe(data: bytes, code: str, place: int) -> None:
    source, (fault,) = read_source(data, "mine.vlo")
    assert (fault.code, fault.primary.span.start) == (code, place)
    assert source.name == "mine.vlo"
