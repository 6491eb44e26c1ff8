"""Laws of the syntax: what is printed parses back, formatting is a projection, and no text whatever raises."""

from __future__ import annotations

import time
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from properties.programs import modules, untidy
from vlmdsl.diagnostics import render_text
from vlmdsl.source import SourceMap, SourceText
from vlmdsl.syntax import parse, read_source, same_tree, tree
from vlmdsl.syntax.format import format_module, format_text

WORDS = [
    "let", "in", "=", "(", ")", "[", "]", "{", "}", "minimize", "recipe", "x", "1", "10%", '"s"', '"', "\n", "\n", " ",
    "#c\n", "##d\n", ",", ":", "+", "-", "*", "<", "|", ".", "def", "use", "as", "vlo", "'", "§", "if", "steps", "\t", "\\",
    "\x00", "\u2028", "cite", "encoder", "status", "2M", "**", "\ufeff", "\ud800", "1e999", "minimise", "漢", "e\u0301",
]  # fmt: skip


def parsed(text: str) -> tree.Module:
    """The tree of a text that has no fault."""
    module, faults = parse(SourceText("random.vlo", text))
    assert not faults, f"{faults}\n{text}"
    return module


@given(modules())
def test_a_printed_tree_parses_back_to_itself(module: tree.Module) -> None:
    text = format_module(module)
    assert same_tree(parsed(text), module), text


@settings(max_examples=100)
@given(st.data())
def test_formatting_is_a_projection_that_keeps_meaning_and_comments(data: st.DataObject) -> None:
    text = data.draw(untidy(format_module(data.draw(modules()))))
    before = parsed(text)
    once = format_text(SourceText("random.vlo", text))
    after = parsed(once)
    assert same_tree(after, before), f"{text}\n---\n{once}"
    assert Counter(comment.text for comment in after.comments) == Counter(comment.text for comment in before.comments)
    assert format_text(SourceText("random.vlo", once)) == once, f"{text}\n---\n{once}"


@settings(max_examples=200)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join) | st.text(max_size=60))
@example("(" * 10_000)
@example("-" * 3_000 + "x")
@example("let a = b in " * 2_000 + "x")
@example("x" + ".a" * 5_000)
@example("minimize " + " + ".join(["x"] * 5_000))
@example("minimize {" + "a b\n" * 5_000 + "}")
@example("minimize " + "9" * 100_000)
def test_any_text_gives_a_tree_and_diagnostics_within_two_seconds(text: str) -> None:
    source = SourceText("random.vlo", text)
    sources = SourceMap()
    sources.add(source)
    start = time.process_time()
    module, faults = parse(source)
    rendered = render_text(faults, sources)
    elapsed = time.process_time() - start
    for fault in faults:
        for label in (fault.primary, *fault.secondary):
            assert 0 <= label.span.start <= label.span.end <= len(text)
    starts = [item.span.start for item in module.items]
    assert starts == sorted(starts)
    assert bool(rendered) == bool(faults)
    assert elapsed < 2


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    source, faults = read_source(data, "random.vlo")
    if not faults:
        assert source.text == data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    parse(source)
