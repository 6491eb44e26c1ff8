from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.source import SourceText
from vlmdsl.syntax import parse
from vlmdsl.syntax.format import format_module, format_text

STYLE = Path(__file__).parent / "style"
CASES = {
    "a bare expression keeps no edition": ("contrast( image,text )", "contrast(image, text)\n"),
    "anything else gets one": ("minimize a", "vlo 1\n\nminimize a\n"),
    "parentheses that mean nothing go": ("((a)+(b*c))|(d)", "a + b * c | d\n"),
    "parentheses that mean something stay": ("-(a+b)*(c-(d-e))", "-(a + b) * (c - (d - e))\n"),
    "a number stands clear of points and brackets": ("(3).a+(3)[0]", "(3).a + (3)[0]\n"),
    "numbers are spelt as written": ("f(32k, 15%, 1E3, 10steps)", "f(32k, 15%, 1E3, 10 steps)\n"),
    "strings are escaped": ('f("a\\"\\u0007\\\\é")', 'f("a\\"\\u0007\\\\é")\n'),
    "one blank line at most": (
        "vlo 1\n\n\n\nlet a=1\nlet b=2\n\n\n\nminimize a\n\n",
        "vlo 1\n\nlet a = 1\nlet b = 2\n\nminimize a\n",
    ),
    "windows line ends": ("vlo 1\r\nminimize a # b\r\n", "vlo 1\nminimize a  # b\n"),
    "use on one line": ("use a,b ,c.d\nuse e\nminimize a", "vlo 1\n\nuse a, b, c.d\nuse e\nminimize a\n"),
    "terms stand in a column": ("minimize {a: x,long: y}", "vlo 1\n\nminimize {\n  a:    x\n  long: y\n}\n"),
    "blocks are indented, and keep their comments": (
        "stage a{# why\nminimize x\n# end\n}\nstage b from a{flow c(u,v) share 15%{minimize{t: x}} # c\nflow d{minimize y}}",
        (
            "vlo 1\n\nstage a {  # why\n  minimize x\n  # end\n}\nstage b from a {\n"
            "  flow c(u, v) share 15% {\n    minimize {\n      t: x\n    }\n  }  # c\n"
            "  flow d {\n    minimize y\n  }\n}\n"
        ),
    ),
    "words of blocks are names elsewhere": (
        "let stage=1\nlet share = stage\nminimize share*flow(from=stage)",
        "vlo 1\n\nlet stage = 1\nlet share = stage\nminimize share * flow(from=stage)\n",
    ),
    "a comment between operands breaks them": (
        "minimize (a # one\n + b\n # two\n - c)",
        "vlo 1\n\nminimize (\n  a  # one\n  + b\n  # two\n  - c\n)\n",
    ),
    "a comment without a place goes before": ("let a = # why\n 1\nminimize a", "vlo 1\n\n# why\nlet a = 1\nminimize a\n"),
    "but a documenting one must not document": (
        "let a =\n ## why\n 1\nminimize a",
        "vlo 1\n\nlet a = (\n  ## why\n  1\n)\nminimize a\n",
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_style(text: str, expected: str) -> None:
    assert format_text(SourceText("mine.vlo", text)) == expected
    assert format_text(SourceText("mine.vlo", expected)) == expected


@pytest.mark.parametrize("path", sorted(STYLE.glob("*.vlo")), ids=lambda path: path.stem)
def test_files(path: Path) -> None:
    """`style/NAME.vlo` becomes `style/NAME.expected`; VLMDSL_ACCEPT=1 rewrites it."""
    actual = format_text(SourceText(path.name, path.read_text(encoding="utf-8")))
    expected = path.with_suffix(".expected")
    if os.environ.get("VLMDSL_ACCEPT"):
        expected.write_text(actual, encoding="utf-8")
    assert actual == expected.read_text(encoding="utf-8")
    assert format_text(SourceText(path.name, actual)) == actual


def test_no_line_of_breakable_code_is_too_long() -> None:
    names = ", ".join(f"argument{index}" for index in range(60))
    text = f"recipe r({', '.join(f'field{index}: Image' for index in range(20))})\nuse {names}\nminimize x * f({names})"
    assert max(map(len, format_text(SourceText("mine.vlo", text)).splitlines())) <= 100


def test_a_tree_without_its_source_shows_its_documentation() -> None:
    module, _ = parse(SourceText("mine.vlo", "## About a.\nlet a = 32k\nminimize a"))
    assert format_module(module) == "vlo 1\n\n## About a.\nlet a = 32000\n\nminimize a\n"


def test_a_text_with_faults_is_refused_with_them() -> None:
    with pytest.raises(DiagnosticError) as raised:
        format_text(SourceText("mine.vlo", "minimise a"))
    assert [fault.code for fault in raised.value.diagnostics] == ["V0122"]
