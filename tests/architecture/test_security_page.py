"""`docs/security.md` claims nothing that no test holds: every sentence is a bullet that names its tests, which exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
BULLET = re.compile(r"- .+?(?P<tests>\(`[^()]+`\))\.?", re.DOTALL)
TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)`")


def faults(text: str) -> Iterator[str]:
    """What is wrong with a page: text that is not a bullet in a section, bullets without tests, tests that do not exist."""
    _, *sections = re.split(r"^## .*\n", text, flags=re.MULTILINE)
    for bullet in (part.strip() for section in sections for part in re.split(r"\n(?=\S)", section) if part.strip()):
        claim = BULLET.fullmatch(bullet)
        if claim is None:
            yield f"no bullet that ends in (`tests/FILE.py::test_NAME`): {bullet}"
            continue
        tests = list(TEST.finditer(claim["tests"]))
        if len(tests) != claim["tests"].count("`") // 2:
            yield f"not all of them are tests: {claim['tests']}"
        for test in tests:
            if test["name"] not in functions(ROOT / test["file"]):
                yield f"no such test: {test[0]}"


@cache
def functions(path: Path) -> frozenset[str]:
    """The names of all functions of a file; none where there is no such file."""
    if not path.is_file():
        return frozenset()
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef))


def test_every_sentence_of_the_page_names_a_test_that_exists() -> None:
    problems = list(faults(PAGE.read_text("utf-8")))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("- True (`tests/architecture/test_security_page.py::test_the_measure_itself`)\n", []),
        ("- True,\n  and long\n  (`tests/architecture/test_security_page.py::test_the_measure_itself`)\n", []),
        ("- True (`tests/architecture/test_security_page.py::test_of_tomorrow`)\n", ["no such test"]),
        ("- True (`tests/architecture/test_nowhere.py::test_it`)\n", ["no such test"]),
        ("- True (`see the code`)\n", ["not all of them are tests"]),
        ("- Claimed.\n", ["no bullet"]),
        ("Claimed.\n", ["no bullet"]),
        ("- True (`tests/architecture/test_security_page.py::test_the_measure_itself`)\nand claimed.\n", ["no bullet"]),
    ],
)
def test_the_measure_itself(section: str, expected: list[str]) -> None:
    problems = list(faults(f"# Page\n\nAn introduction.\n\n## Section\n\n{section}"))
    assert [fault.partition(" that ends")[0].partition(":")[0] for fault in problems] == expected
