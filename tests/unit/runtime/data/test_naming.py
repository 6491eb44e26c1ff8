"""Texts that name boxes: drawn per sample and epoch, with names of other things, within the length of a text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data.concepts import read_concepts
from vlmdsl.runtime.data.context import Materials, ViewContext
from vlmdsl.runtime.data.naming import concepts, prompt
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import PhrasesValue, TextFormat

OTHERS = tuple(f"thing {number}" for number in range(40))
VALUE = PhrasesValue("", (), ("a dog", "a cat", "a dog"), ("a cat", *OTHERS))
PROMPT = {"negatives": 12, "full": 0.5, "draw": 0}


def context(key: str = "k", epoch: int = 0, length: int = 400, **materials: object) -> ViewContext:
    form = TextFormat(train_tokenizer(["a dog", *OTHERS], 300), length)
    return ViewContext(0, epoch, key, form, Counter(), Materials(**materials))  # type: ignore[arg-type]


def test_a_prompt_has_every_name_of_a_box_once_and_at_most_so_many_others() -> None:
    counts = []
    for sample in range(60):
        text = prompt(VALUE, PROMPT, context(str(sample)))
        names = text.text.split(". ")
        assert len(set(names)) == len(names)
        assert {"a dog", "a cat"} <= set(names)
        assert [text.text[slice(*spans[0])] for spans in text.spans] == list(VALUE.names)
        counts.append(len(names) - 2)
    assert 1 <= min(counts) < max(counts) == 12
    assert 0.3 < np.mean(np.array(counts) == 12) < 0.75  # one half, and one in 12 of the rest


def test_a_prompt_without_negatives_is_the_text_as_it_is() -> None:
    caption = PhrasesValue("a cat sits by a dog", (((14, 19),), ((0, 5),)), ("a dog", "a cat"), tuple(OTHERS))
    for value in (VALUE, caption):
        text = prompt(value, PROMPT | {"negatives": 0}, context())
        assert (text.text, text.spans) == (value.text, value.spans)


def test_prompts_are_drawn_per_epoch_and_depend_on_nothing_else() -> None:
    first, again, later = (prompt(VALUE, PROMPT, context(epoch=epoch)) for epoch in (0, 0, 1))
    assert first == again != later


def test_a_prompt_that_is_too_long_has_fewer_others() -> None:
    short = context(length=24)
    text = prompt(VALUE, PROMPT | {"negatives": 30, "full": 1.0}, short)
    assert short.form.tokenizer.lengths([text.text])[0] <= 24
    assert {"a dog", "a cat"} <= set(text.text.split(". "))
    assert short.counts["prompt: fewer negatives, so that the text is not too long"] == 1


def test_concepts_are_as_many_as_asked_and_name_their_boxes() -> None:
    value = concepts(VALUE, {"count": 8, "defined": True, "draw": 0}, context())
    assert len(set(value.texts)) == value.count == 8
    assert [value.texts[place] for (place,) in value.named_by] == list(VALUE.names)


def test_names_that_do_not_fit_are_left_out_and_counted() -> None:
    counted = context()
    value = concepts(VALUE, {"count": 1, "defined": True, "draw": 0}, counted)
    assert value.named_by == ((0,), (), (0,))
    assert counted.counts["concepts: more than 1 names, the rest left out"] == 1


def test_definitions_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "concepts.txt"
    path.write_text("# animals\na dog: a tame wolf\n\na cow\na cat: a small hunter # comment\n", encoding="utf-8")
    names = read_concepts(str(path))
    assert names.names == ("a dog", "a cow", "a cat")
    value = concepts(VALUE, {"count": 3, "defined": True, "draw": 0}, context(concepts=names))
    assert sorted(value.texts) == ["a cat, a small hunter", "a cow", "a dog, a tame wolf"]
    plain = concepts(VALUE, {"count": 3, "defined": False, "draw": 0}, context(concepts=names))
    assert sorted(plain.texts) == ["a cat", "a cow", "a dog"]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xfd", b"# nothing\n"])
def test_a_file_without_concepts_is_reported(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "concepts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DiagnosticError, match="concepts"):
        read_concepts(str(path))


def test_a_home_folder_that_does_not_exist_is_reported() -> None:
    with pytest.raises(DiagnosticError, match="there is no such home folder"):
        read_concepts("~nobody-has-this-name/concepts.txt")
