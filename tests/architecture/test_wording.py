"""The project speaks the field's English: wordings that `grammar/GLOSSARY.md` replaces do not occur."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("vlmdsl", "cli", "tests", "benchmarks", "docs", "recipes", "grammar")
EXEMPT = {
    "grammar/GLOSSARY.md": "quotes what it replaces",
    "tests/architecture/test_wording.py": "quotes what it rules out",
    "CHANGELOG.md": "entries of the past stay as they were written",
}
KEPT = re.compile(r"^(?:given )?knobs$|`knobs`|\bknobs(?==|,)")
"""A public keyword (`vlmdsl.train(knobs=...)`), and a key of `run.json` and of JSON output; prose says hyper-parameter."""

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
    "hangs on: depends on": re.compile(r"\bhangs? on\b", re.IGNORECASE),
    "kept aside: set aside": re.compile(r"\bkept aside\b", re.IGNORECASE),
    "goes on with: continues with": re.compile(r"\bgo(?:es)? on (?:with|from|at)\b", re.IGNORECASE),
    "gone through: read": re.compile(r"\bgone through\b", re.IGNORECASE),
    "for itself: separately": re.compile(r"\beach (?:\w+ ){0,3}for itself\b", re.IGNORECASE),
    "in the place of: instead of": re.compile(r"\bin the place of\b", re.IGNORECASE),
    "likest: most similar": re.compile(r"\blikest\b", re.IGNORECASE),
    "somebody: third-party, a caller": re.compile(r"\bsomebody\b", re.IGNORECASE),
    "afresh: again": re.compile(r"\bafresh\b", re.IGNORECASE),
}
COMMENT = re.compile(r"^\s*#.*$|  #.*$", re.MULTILINE)
EMPTY_NAMES = {"found", "known", "made", "told", "given", "wanted", "asked", "met"}


def prose_of(text: str, tree: ast.Module | None) -> str:
    """What is written for people: comments, strings and names of Python, and all of any other file; without line breaks."""
    strings = [text]
    if tree is not None:
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        names = (name.replace("_", " ") for name in names_in(tree) if name.strip("_") not in EMPTY_NAMES)
        strings = [*(value for value in constants if isinstance(value, str)), *COMMENT.findall(text), *names]
    return "\n".join(re.sub(r"\s+", " ", KEPT.sub("", part)) for part in strings)


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


def _files() -> list[Path]:
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))] + sorted(ROOT.glob("*.md"))
    suffixes = {".py", ".md", ".vlo", ".lark", ".expected", ".txt"}
    return [path for path in files if path.suffix in suffixes and path.relative_to(ROOT).as_posix() not in EXEMPT]


def test_no_file_has_one_of_them() -> None:
    hits = [
        f"{path.relative_to(ROOT).as_posix()}: {count} times `{rule}`"
        for path in _files()
        for rule, count in hits_in(path, path.read_text("utf-8")).items()
    ]
    assert not hits, "\n".join(hits)


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
        ("a.py", "def test_a_scale_is_no_loss(): all_told_apart = 1", ["is no X: is not a X"]),
        ("a.py", "train(knobs=hyper_parameters)['knobs']", []),
        ("a.md", "call `train(knobs={...})`; a knob of the recipe", ["knob: hyper-parameter"]),
        ("a.py", "def f():\n    'the term is\\n    no loss'", ["is no X: is not a X"]),
        ("a.md", "if there is none, there are none", []),
    ],
)
def test_the_measure_itself(name: str, text: str, rules: list[str]) -> None:
    assert sorted(hits_in(Path(name), text).elements()) == sorted(rules)
