"""The project speaks the field's English: wordings that `grammar/GLOSSARY.md` replaces do not come in again.

What is left of them is counted per folder in `wording.json`, and no count may grow; VLMDSL_ACCEPT=1 writes the lower ones.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = Path(__file__).with_name("wording.json")
FOLDERS = ("vlmdsl", "cli", "tests", "benchmarks", "docs", "recipes", "grammar")
EXEMPT = {"grammar/GLOSSARY.md", "tests/architecture/test_wording.py", "LICENSE"}
"""The files that have to quote what they rule out."""

COUNTED = (
    r"one|once|twice|two|three|four|\d+|class|matrices|process(?:es)?|pixels|texts|patches|products|bytes|FLOPs|"
    r"(?:line|number|vector|feature|value|module|rule|function|token|condition|distribution|object|scale|panel|dot|set|"
    r"folder|file|instance|word|element|step|image|sample|page|row|parameter|diagnostic|code)s?"
)
UNIT = (
    "sample|step|row|batch|node|process|word|patch|token|epoch|field|run|code|column|line|shard|pair|image|text|side|worker|"
    "term|class|view|stream|file|query|block|call|pass|operation|seed|recipe|name|direction|entry|path|module|rank|layer|head|"
    "encoder|tower|parameter|statement|region|test|page|folder|function|stage|type|kind|place|value|case|source|command|"
    "message|cluster|measure|second|round"
)
PROSE = {
    "is no X: is not a X": re.compile(
        r"(?<!there )\b(?:is|are|was|were|be) no (?!longer\b|more\b|less\b|fewer\b)[\w`]", re.IGNORECASE
    ),
    "is none: is not one": re.compile(r"(?<!there )\b(?:is|are) none\b"),
    "one a sample: one per sample": re.compile(rf"(?<!command )\b(?:{COUNTED}) an? (?:{UNIT})\b", re.IGNORECASE),
    "told: reported": re.compile(r"\btold\b(?! apart| not to)", re.IGNORECASE),
    "mend: fix": re.compile(r"\b(?:un)?mend(?:s|ed|ing|able)?\b", re.IGNORECASE),
    "knob: hyper-parameter": re.compile(r"\bknobs?\b", re.IGNORECASE),
    "anew: again": re.compile(r"\banew\b", re.IGNORECASE),
    "bit-equal: bit-identical": re.compile(r"\bbit-equal", re.IGNORECASE),
    "pair grid: similarity matrices": re.compile(r"\bpair grid\b", re.IGNORECASE),
    "word of the tokenizer: vocabulary entry": re.compile(r"\bwords? (?:of|that) (?:the|its|a) tokenizer\b", re.IGNORECASE),
    "shared out: split": re.compile(r"\bshared out\b", re.IGNORECASE),
    "gone on with: resumed": re.compile(r"\bgone on with\b", re.IGNORECASE),
    "what for": re.compile(r"\bwhat for\b", re.IGNORECASE),
}
COMMENT = re.compile(r"^\s*#.*$|  #.*$", re.MULTILINE)
EMPTY_NAMES = {"found", "known", "made", "told", "given", "wanted", "asked", "met"}


def prose_of(text: str, tree: ast.Module | None) -> str:
    """What is written for people: comments and strings of Python, and all of any other file."""
    if tree is None:
        return text
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return "\n".join((*strings, *COMMENT.findall(text)))


def names_in(tree: ast.Module) -> Iterator[str]:
    """The names that a Python file gives to variables, parameters and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def hits_in(path: Path, text: str) -> Counter[str]:
    """How often each wording stands in one file."""
    tree = ast.parse(text) if path.suffix == ".py" else None
    prose = prose_of(text, tree)
    hits = Counter({rule: len(pattern.findall(prose)) for rule, pattern in PROSE.items()})
    if tree is not None:
        hits["empty name"] = sum(name in EMPTY_NAMES for name in names_in(tree))
    return +hits


def _files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".vlo", ".lark", ".expected", ".txt"} and path.is_file():
                yield path
    yield from sorted(ROOT.glob("*.md"))


def _counts() -> dict[str, dict[str, int]]:
    """Folder, at most three levels deep -> wording -> how often it stands there."""
    counts: dict[str, Counter[str]] = {}
    for path in _files():
        name = path.relative_to(ROOT).as_posix()
        if name not in EXEMPT:
            folder = "/".join(name.split("/")[:-1][:3]) or name
            counts.setdefault(folder, Counter()).update(hits_in(path, path.read_text("utf-8")))
    return {folder: dict(sorted(hits.items())) for folder, hits in sorted(counts.items()) if hits}


def test_no_folder_has_more_of_them_than_before() -> None:
    allowed: dict[str, dict[str, int]] = json.loads(ALLOWED.read_text("utf-8"))
    counts = _counts()
    grown = [
        f"{folder}: {count} times `{rule}`, {allowed.get(folder, {}).get(rule, 0)} allowed"
        for folder, hits in counts.items()
        for rule, count in hits.items()
        if count > allowed.get(folder, {}).get(rule, 0)
    ]
    assert not grown, "\n".join(grown)
    if os.environ.get("VLMDSL_ACCEPT"):
        ALLOWED.write_text(json.dumps(counts, indent=1) + "\n", "utf-8")


@pytest.mark.parametrize(
    ("name", "text", "rules"),
    [
        ("a.md", "the term is no loss", ["is no X: is not a X"]),
        ("a.md", "there is no loss, and it is no longer used", []),
        ("a.md", "one vector a sample, once a step", ["one a sample: one per sample"] * 2),
        ("a.md", "gives the field a name", []),
        ("a.md", "it is told; they cannot be told apart", ["told: reported"]),
        ("a.py", "told = 'mends a knob'  # anew", ["mend: fix", "knob: hyper-parameter", "anew: again", "empty name"]),
        ("a.py", "def f(given): return [found for found in given]", ["empty name"] * 2),
        ("a.py", "indices = found.given", []),
    ],
)
def test_the_measure_itself(name: str, text: str, rules: list[str]) -> None:
    assert sorted(hits_in(Path(name), text).elements()) == sorted(rules)
