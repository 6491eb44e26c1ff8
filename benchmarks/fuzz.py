"""Mutated programs through everything that reads a recipe: no text raises, and each is checked in little time.

    python benchmarks/fuzz.py --programs 20000

A program is a bundled recipe, an example or a program of the catalogue of diagnostics, changed in one to six ways: words
deleted, doubled, exchanged or taken from other programs, quotes and brackets damaged, odd characters put in, lines moved,
the text cut, two texts spliced; or it is a soup of words. Each is checked, parsed, formatted and its diagnostics are
rendered in all forms; what checks clean is also planned, emitted and written as a formula. A failure is anything that is
raised, more than 100 diagnostics, text formatted to something with another tree, or more than two seconds.

The result is printed and written to `benchmarks/results/fuzz.json`. With `--seed` it runs other programs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import vlmdsl
from vlmdsl.api.driver import build_flows
from vlmdsl.backends.latex import formula, formula_text
from vlmdsl.backends.plan import make_plan
from vlmdsl.diagnostics import catalogue, render_github, render_json, render_text
from vlmdsl.primitives import all_primitives
from vlmdsl.source import SourceMap, SourceText
from vlmdsl.source.bundled import bundled_names, bundled_text
from vlmdsl.source.limits import MAXIMUM_DIAGNOSTICS
from vlmdsl.syntax import same_tree

RESULT = Path(__file__).resolve().parent / "results" / "fuzz.json"
SECONDS = 2.0
WORD = re.compile(r'"[^"\n]*"|\w+|\s+|.', re.DOTALL)
ODD = [
    "\x00", "\x1b", "\u202e", "\u2028", "\ud800", "\ufeff", "é", "漢", "🙂", "“", "”", "‘", "'", "`", "×", "−", "\t", "\r",
    "\f",     "\\", "\\u202e", "\\ud800", '"', '"', "#", "##", "§", "\u00a0", "e\u0301", "٣", "½", "\x85",
]  # fmt: skip
SOUP = [
    "let", "in", "def", "use", "as", "recipe", "minimize", "encoder", "cite", "status", "batch", "vlo", "=", "(", ")", "[",
    "]", "{", "}", ",", ":", "+", "-", "*", "/", "<", "==", "|", ".", "\n", "\n", "1", "0.07", "15%", "32k", "2M",
    "10 steps", "1e999", "0", '"rows"', "image", "text", "contrast", "learned", "augment", "similarity", "tau", "x", "Image",
    "Text", "std.contrast", "where", "queue", "each", "stop", "**", ":=", "if", "for", "import", "->", ";", "samples",
    "paired", "all",
]  # fmt: skip


def corpus() -> list[str]:
    """The programs that mutations start from: all that come along, and all that a diagnostic is about."""
    recipes = [text.text for text in map(bundled_text, bundled_names()) if text is not None]
    examples = [primitive.example for primitive in all_primitives().values() if primitive.example]
    pages = [program for problem in catalogue().values() for program in (problem.bad, problem.good) if program]
    return recipes + examples + pages


def _words(draw: random.Random, text: str, others: list[str]) -> str:
    """Words deleted, doubled, exchanged, or put in from another program."""
    words = WORD.findall(text) or [" "]
    place = draw.randrange(len(words))
    other = draw.choice(WORD.findall(draw.choice(others)) or [" "])
    change = draw.randrange(5)
    if change == 0:
        del words[place : place + draw.choice((1, 1, 1, 3, 10))]
    elif change == 1:
        words.insert(place, words[place])
    elif change == 2:
        words.insert(place, other)
    elif change == 3:
        words[place] = other
    else:
        second = draw.randrange(len(words))
        words[place], words[second] = words[second], words[place]
    return "".join(words)


def _damage(draw: random.Random, text: str, others: list[str]) -> str:
    """A quote or a bracket deleted, put in, or turned into another."""
    places = [place for place, character in enumerate(text) if character in '"()[]{},:=']
    if not places:
        return text + draw.choice('"([{')
    place = draw.choice(places)
    return text[:place] + draw.choice(("", "", '"', "(", ")", "[", "]", "{", "}", text[place] * 2)) + text[place + 1 :]


def _odd(draw: random.Random, text: str, others: list[str]) -> str:
    place = draw.randrange(len(text) + 1)
    return text[:place] + draw.choice(ODD) * draw.choice((1, 1, 2, 50)) + text[place:]


def _cut(draw: random.Random, text: str, others: list[str]) -> str:
    first, last = sorted((draw.randrange(len(text) + 1), draw.randrange(len(text) + 1)))
    return draw.choice((text[:last], text[first:], text[:first] + text[last:]))


def _splice(draw: random.Random, text: str, others: list[str]) -> str:
    other = draw.choice(others)
    return text[: draw.randrange(len(text) + 1)] + other[draw.randrange(len(other) + 1) :]


def _lines(draw: random.Random, text: str, others: list[str]) -> str:
    """Lines exchanged, doubled, or put in from another program."""
    lines = text.split("\n")
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    change = draw.randrange(3)
    if change == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif change == 1:
        lines.insert(first, lines[second])
    else:
        lines.insert(first, draw.choice(draw.choice(others).split("\n")))
    return "\n".join(lines)


def _names(draw: random.Random, text: str, others: list[str]) -> str:
    """A name exchanged by another one of the program, or of one like it: many such programs are correct."""
    places = list(re.finditer(r"[A-Za-z_]\w*", text))
    if not places:
        return text
    place, other = draw.choice(places), draw.choice(places)
    names = re.findall(r"[A-Za-z_]\w*", draw.choice(others)) if draw.random() < 0.5 else None
    return text[: place.start()] + (draw.choice(names) if names else other[0]) + text[place.end() :]


def _numbers(draw: random.Random, text: str, others: list[str]) -> str:
    places = list(re.finditer(r"\d+(\.\d+)?", text))
    if not places:
        return text
    place = draw.choice(places)
    odd = ("0", "-1", "1e308", "1e-308", "0.5", "64", "65", "1e999", "9007199254740993", "10 steps", "1%", "1.", ".5", '"1"')
    return text[: place.start()] + draw.choice(odd) + text[place.end() :]


MUTATIONS: tuple[Callable[[random.Random, str, list[str]], str], ...] = (
    _words, _words, _words, _names, _names, _names, _damage, _odd, _cut, _splice, _lines, _numbers, _numbers,
)  # fmt: skip


def program(seed: int, others: list[str]) -> str:
    """The program of a seed: one in ten is a soup of words, the others are mutations."""
    draw = random.Random(seed)
    if draw.random() < 0.1:
        return " ".join(draw.choices([*SOUP, *ODD], k=draw.randrange(1, 60)))
    text = draw.choice(others)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 6))):
        text = draw.choice(MUTATIONS)(draw, text, others)
    return text


@dataclass
class Report:
    """What became of the programs."""

    programs: int = 0
    correct: int = 0
    formatted: int = 0
    slowest_seconds: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, object]] = field(default_factory=list)


def failures_of(text: str, report: Report) -> Iterator[str]:
    """What is wrong with how one text was treated; what it gave is added to the report."""
    start = time.process_time()
    diagnostics = vlmdsl.check(text, file="fuzz.vlo")
    elapsed = time.process_time() - start
    report.slowest_seconds = max(report.slowest_seconds, elapsed)
    report.codes.update(diagnostic.code for diagnostic in diagnostics)
    if elapsed > SECONDS:
        yield f"checked in {elapsed:.1f} s"
    if len(diagnostics) > MAXIMUM_DIAGNOSTICS:
        yield f"{len(diagnostics)} diagnostics"
    source = SourceText("fuzz.vlo", text)
    sources = SourceMap()
    sources.add(source)
    render_text(diagnostics, sources, colour=True)
    render_github(diagnostics, sources)
    json.loads(render_json(diagnostics, sources))
    module, faults = vlmdsl.parse(text, file="fuzz.vlo")
    if not faults:
        report.formatted += 1
        formatted = vlmdsl.format(text, file="fuzz.vlo")
        if not same_tree(vlmdsl.parse(formatted)[0], module):
            yield "formatting changes the tree"
    if not any(diagnostic.severity == "error" for diagnostic in diagnostics):
        report.correct += 1
        _later_stages(text)


def _later_stages(text: str) -> None:
    """All that is made of a correct recipe without running it."""
    for built in build_flows(text, expression=True):
        make_plan(built.planned, batch=64, world=2, sources=built.front_end.sources).to_text()
        formula(built.written)
        formula_text(built.written)
        emitted = import_module("vlmdsl.backends.torch.emit").emit(built.planned, sources=built.front_end.sources)
        import_module("vlmdsl.backends.torch.allowed").allowed_tree(emitted)


def fuzz(programs: int, seed: int = 0) -> Report:
    """Runs the programs of `programs` seeds."""
    report, others = Report(), corpus()
    for number in range(seed * 1_000_000, seed * 1_000_000 + programs):
        text = program(number, others)
        report.programs += 1
        try:
            failures = list(failures_of(text, report))
        except Exception:  # whatever it is, it is a failure, and the other programs go on
            failures = [traceback.format_exc(limit=-3)]
        report.failures += [{"seed": number, "text": text[:2_000], "failure": failure} for failure in failures]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = fuzz(options.programs, options.seed)
    result = {
        "seed": options.seed,
        "programs": report.programs,
        "failures": report.failures,
        "correct": report.correct,
        "without_syntax_faults": report.formatted,
        "slowest_seconds": round(report.slowest_seconds, 2),
        "codes": dict(sorted(report.codes.items())),
    }
    text = json.dumps(result, indent=2) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
