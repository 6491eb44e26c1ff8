from __future__ import annotations

import json
import re

import pytest

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, Label, render_github, render_json, render_text
from vlmdsl.source import SourceMap, SourceText, Span

RECIPE = "vlo 1\n\nlet tau = 0.07\nminimize contrast(image.pooled, text, sim=tokenmax)\n"


@pytest.fixture
def sources() -> SourceMap:
    return sources_of(RECIPE)


def sources_of(*texts: str) -> SourceMap:
    sources = SourceMap()
    for index, text in enumerate(texts):
        sources.add(SourceText(("mine.vlo", "other.vlo")[index], text))
    return sources


def at(text: str, words: str, note: str = "", file: str = "mine.vlo") -> Label:
    start = text.index(words)
    return Label(Span(file, start, start + len(words)), note)


def pooled(**details: object) -> Diagnostic:
    label = at(RECIPE, "image.pooled", "Vec[B, D], no token axis")
    return Diagnostic("V0304", "`tokenmax` compares tokens", label, **details)  # type: ignore[arg-type]


def test_one_diagnostic_looks_as_the_language_says(sources: SourceMap) -> None:
    fix = Fix("drop it", (Edit(Span("mine.vlo", 46, 53), ""),))
    expected = """\
error[V0304]: `tokenmax` compares tokens
  --> mine.vlo:4:19
   |
 4 | minimize contrast(image.pooled, text, sim=tokenmax)
   |                   ^^^^^^^^^^^^ Vec[B, D], no token axis
   = note: why it is so
   = help: drop `.pooled`        [--fix]"""
    diagnostic = pooled(notes=("why it is so",), help=("drop `.pooled`",), fix=fix)
    assert render_text([diagnostic], sources, count=False) == expected


def test_secondary_labels_show_their_lines_and_files() -> None:
    other = "def f(a) = a\n"
    secondary = (
        at(RECIPE, "tau", "defined here"),
        at(other, "f(a)", "and there", "other.vlo"),
        at(RECIPE, "tokenmax", "asked here"),
    )
    lines = render_text([pooled(secondary=secondary)], sources_of(RECIPE, other), count=False).splitlines()
    assert lines[3:] == [
        " 3 | let tau = 0.07",
        "   |     --- defined here",
        " 4 | minimize contrast(image.pooled, text, sim=tokenmax)",
        "   |                   ^^^^^^^^^^^^ Vec[B, D], no token axis",
        "   |                                           -------- asked here",
        "  ::: other.vlo:1:5",
        "   |",
        " 1 | def f(a) = a",
        "   |     ---- and there",
    ]


@pytest.mark.parametrize(
    ("line", "words", "shown", "carets"),
    [
        ("\tlet x = y", "x", "    let x = y", "        ^"),
        ("let 漢字 = x", "x", "let 漢字 = x", "           ^"),
        ("let 漢字 = x", "漢字", "let 漢字 = x", "    ^^^^"),
        ("let e\u0301 = x", "x", "let e\u0301 = x", "        ^"),
        ("a\x1b[31mb", "b", "a�[31mb", "      ^"),
    ],
)
def test_carets_stand_under_what_a_terminal_shows(line: str, words: str, shown: str, carets: str) -> None:
    diagnostic = Diagnostic("V0104", "m", at(line, words))
    lines = render_text([diagnostic], sources_of(line), count=False).splitlines()
    assert lines[3:] == [f" 1 | {shown}", f"   | {carets}"]


def test_an_overlong_line_is_cut_around_the_place() -> None:
    line = "a" * 500 + "HERE" + "b" * 500
    excerpt, carets = render_text([Diagnostic("V0104", "m", at(line, "HERE"))], sources_of(line), count=False).splitlines()[
        3:
    ]
    assert len(excerpt) < 180
    assert excerpt[carets.index("^") : carets.rindex("^") + 1] == "HERE"


def test_the_end_of_the_text_and_an_unknown_file_can_be_pointed_at() -> None:
    end = Diagnostic("V0129", "m", Label(Span("mine.vlo", 3, 3)))
    assert render_text([end], sources_of("let"), count=False).splitlines()[-1] == "   |    ^"
    elsewhere = Diagnostic("V0801", "m", Label(Span("<command line>", 5, 9), "this word"))
    assert (
        render_text([elsewhere], sources_of("let"), count=False)
        == "error[V0801]: m\n  --> <command line>\n   = note: this word"
    )


def test_the_last_line_counts(sources: SourceMap) -> None:
    warning = pooled(severity="warning")
    assert render_text([pooled(), pooled(), warning], sources).endswith("\n\n2 errors, 1 warning")
    assert render_text([], sources) == ""


def test_colour_adds_escapes_only(sources: SourceMap) -> None:
    coloured = render_text([pooled(help=("h",))], sources, colour=True)
    assert coloured != render_text([pooled(help=("h",))], sources)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text([pooled(help=("h",))], sources)


def test_json_has_every_fact(sources: SourceMap) -> None:
    fix = Fix("drop it", (Edit(at(RECIPE, ".pooled").span, ""),))
    diagnostic = pooled(secondary=(at(RECIPE, "tau", "here"),), notes=("n",), help=("h",), fix=fix)
    report = json.loads(render_json([diagnostic], sources))
    assert (report["schema"], report["errors"], report["warnings"]) == (1, 1, 0)
    place = {"file": "mine.vlo", "line": 4, "end_line": 4, "end_column": 31}
    assert report["diagnostics"] == [
        {
            "code": "V0304",
            "severity": "error",
            "message": "`tokenmax` compares tokens",
            **place,
            "column": 19,
            "label": "Vec[B, D], no token axis",
            "labels": [{"file": "mine.vlo", "line": 3, "column": 5, "end_line": 3, "end_column": 8, "text": "here"}],
            "notes": ["n"],
            "help": ["h"],
            "fix": {"title": "drop it", "safe": True, "edits": [{**place, "column": 24, "replacement": ""}]},
        }
    ]


def test_json_of_a_place_without_text_has_no_line(sources: SourceMap) -> None:
    report = json.loads(render_json([Diagnostic("V0801", "m", Label(Span("<command line>", 5, 9)))], sources))
    assert report["diagnostics"][0]["line"] is None


def test_annotations_are_one_line_each_and_escaped(sources: SourceMap) -> None:
    diagnostic = pooled(severity="warning", notes=("100%\nsure",))
    properties = "file=mine.vlo,line=4,col=19,endLine=4,endColumn=31,title=V0304 `tokenmax` compares tokens"
    text = "`tokenmax` compares tokens%0AVec[B, D], no token axis%0A100%25%0Asure"
    assert render_github([diagnostic], sources) == f"::warning {properties}::{text}"
