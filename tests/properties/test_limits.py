"""A text within the limits is checked in two seconds, whatever it holds, and gives at most 100 diagnostics."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.api.check import render
from vlmdsl.source.limits import MAXIMUM_DIAGNOSTICS

SECONDS = 2.0
"""What a text may take on a machine of its own."""
MARGIN = 4
"""Machines are slower, and shared: CPU time of one text varies by a factor of two. What is not linear takes minutes."""
CONTRAST = "contrast(image, text)"


def lines(count: int, line: str, before: str = "", after: str = f"minimize {CONTRAST}") -> str:
    """`line` so many times, `{i}` its number and `{j}` the next one."""
    return before + "\n".join(line.replace("{i}", str(i)).replace("{j}", str(i + 1)) for i in range(count)) + "\n" + after


def terms(count: int, term: str, before: str = "") -> str:
    return lines(count, f"  t{{i}}: {term}", f"{before}minimize {{\n", "}")


def _alike(count: int) -> str:
    """Names of two letters, of which each is a little like each other."""
    draw = random.Random(0)
    words = ["".join(draw.choices("ab", k=60)) for _ in range(2 * count)]
    return "\n".join(f"let {words[2 * i]}{i} = {words[2 * i + 1]}" for i in range(count)) + f"\nminimize {CONTRAST}"


LONGEST = 990_000
TEXTS = {
    "near misses": lines(5_900, "let temperature{i} = temperatrue{i}"),
    "names of two letters": _alike(5_900),
    "misspelt terms": terms(2_900, "contrst(image, text)"),
    "misspelt arguments": terms(1_400, "contrast(image, text, temprature=1)"),
    "bad terms": terms(400, "contrst(imge, txt)"),
    "a chain of functions": lines(2_500, "def f{j}(x) = f{i}(x)", "def f0(x) = x\n", "minimize f2500(1)"),
    "a circle of functions": lines(2_500, "def f{i}(x) = f{j}(x)", "", "def f2500(x) = f0(x)\nminimize f0(1)"),
    "a chain of lets": lines(3_400, "let a{j} = a{i} + 1", "let a0 = 1\n", f"minimize a3400 * {CONTRAST}"),
    "lets that double": lines(3_400, "let a{j} = a{i} + a{i}", f"let a0 = {CONTRAST}\n", "minimize a3400"),
    "one recipe used often": lines(7_000, "use clip"),
    "one recipe used often, on one line": f"use {', '.join(['clip'] * 7_000)}\nminimize clip(image, text)",
    "recipes that are not": lines(7_000, "use clp{i}"),
    "files that are not": lines(5_000, 'use "./a{i}.vlo" as b{i}'),
    "many terms": terms(2_500, CONTRAST),
    "terms of one node": terms(2_900, "regress(image, text)"),
    "many queues": terms(1_000, "memory_contrast(image, text, queue(text, size=16), temperature=0.07)"),
    "many views": terms(1_800, "contrast(augment(image, n=8), text)"),
    "sets times sets": terms(1_000, "mean(v * v)", "let v = score(augment(image, n=64), text)\n"),
    "sets of sets": lines(40, "let v{j} = each((v{i}, v{i}))", "let v0 = each((image, image))\n"),
    "tuples of tuples": lines(60, "let v{j} = (v{i}, v{i})", "let v0 = (1, 1)\n"),
    "static arithmetic": lines(80, "def f{j}(x) = f{i}(x) + f{i}(x)", "def f0(x) = x\n", f"minimize f80(1) * {CONTRAST}"),
    "many parameters": f"def f({', '.join(f'a{i}' for i in range(5_000))}) = a0\nminimize f({', '.join(['image'] * 5_000)})",
    "many fields": lines(4_000, "a{i}: Image,", "recipe m(image: Image, text: Text,\n", f")\nminimize {CONTRAST}"),
    "strange characters": f"minimize {'§' * 29_000}",
    "no statement": "a b\n" * 9_000,
    "nothing but signs": "minimize " + "-" * 29_000,
    "brackets": "(]" * 14_000,
    "a long string": f'cite "{"a" * LONGEST}"\nminimize {CONTRAST}',
    "bad escapes": 'cite "' + "\\q" * (LONGEST // 2) + f'"\nminimize {CONTRAST}',
    "a long name": f"minimize {'a' * LONGEST}",
    "comments": "## a\n" * 14_000 + f"minimize {CONTRAST}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_within_the_limits_is_checked_in_two_seconds(name: str) -> None:
    start = time.process_time()
    diagnostics = vlmdsl.check(TEXTS[name])
    rendered = render(diagnostics)
    elapsed = time.process_time() - start
    assert len(diagnostics) <= MAXIMUM_DIAGNOSTICS
    assert bool(rendered) == bool(diagnostics)
    assert elapsed < MARGIN * SECONDS


def _calls(text: str) -> int:
    """How many functions a check calls."""
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        vlmdsl.check(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "make",
    [
        lambda n: terms(n, "contrast(augment(image, n=8), text)"),
        lambda n: terms(n, CONTRAST),
        lambda n: terms(n, "memory_contrast(image, text, queue(text, size=16), temperature=0.07)"),
        lambda n: terms(n, "regress(image, text)"),
        lambda n: lines(4 * n, "let temperature{i} = temperatrue{i}"),
    ],
    ids=["views", "terms", "queues", "terms of one node", "near misses"],
)
def test_twice_the_text_takes_twice_the_calls(make: Callable[[int], str]) -> None:
    """Counted, so that it holds on any machine; the first check of all loads what the next ones find loaded."""
    vlmdsl.check(make(2))
    assert _calls(make(40)) < 2.2 * _calls(make(20))


def test_what_is_not_listed_is_counted() -> None:
    *listed, last = vlmdsl.check(TEXTS["bad terms"])
    assert len(listed) == MAXIMUM_DIAGNOSTICS - 1
    assert {diagnostic.code for diagnostic in listed} == {"V0201"}
    assert (last.code, last.message) == ("V0509", "errors and warnings that are not listed: 1,101")
    assert vlmdsl.check(TEXTS["no statement"])[-1].message == "errors and warnings that are not listed: at least 1"


def test_errors_are_listed_before_warnings() -> None:
    diagnostics = vlmdsl.check(lines(150, "let a{i} = 1", after="minimize contrst(image, text)"))
    assert len(diagnostics) == MAXIMUM_DIAGNOSTICS
    assert [diagnostic.code for diagnostic in diagnostics if diagnostic.severity == "error"] == ["V0201"]


def test_many_warnings_are_not_an_error() -> None:
    diagnostics = vlmdsl.check(lines(150, "let a{i} = 1"))
    assert {diagnostic.severity for diagnostic in diagnostics} == {"warning"}
    vlmdsl.plan(lines(150, "let a{i} = 1"))


@pytest.mark.parametrize("name", ["lets that double", "comments"])
def test_any_text_within_the_limits_is_formatted_in_time(name: str) -> None:
    start = time.process_time()
    vlmdsl.format(TEXTS[name])
    assert time.process_time() - start < 2 * MARGIN * SECONDS


def test_a_file_that_is_used_under_many_names_is_read_once(tmp_path: Path) -> None:
    definitions = "".join(f"def f{i}(x) = x\n" for i in range(2_000))
    (tmp_path / "large.vlo").write_text(definitions + "#" * 900_000, "utf-8")
    start = time.process_time()
    diagnostics = vlmdsl.check(lines(5_000, 'use "./large.vlo" as a{i}'), folder=tmp_path)
    assert time.process_time() - start < MARGIN * SECONDS
    assert len(diagnostics) == MAXIMUM_DIAGNOSTICS


def test_files_have_a_bound_together(tmp_path: Path) -> None:
    for number in range(40):
        text = f"def g{number}(x) = x\n" * 2_500
        (tmp_path / f"a{number}.vlo").write_text(text, "utf-8")
    start = time.process_time()
    diagnostics = vlmdsl.check(lines(40, 'use "./a{i}.vlo" as b{i}'), folder=tmp_path)
    assert time.process_time() - start < 2 * MARGIN * SECONDS
    assert any(diagnostic.code == "V0509" for diagnostic in diagnostics)
