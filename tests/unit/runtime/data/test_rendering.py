"""Rendered texts: what is on the page, how rows shrink, what is cut and counted; and summaries of texts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdsl.api.driver import build
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import streams
from vlmdsl.runtime.data import Materials
from vlmdsl.runtime.data.context import ViewContext
from vlmdsl.runtime.data.rendering import checked_font, render
from vlmdsl.runtime.data.summaries import summarize
from vlmdsl.runtime.data.views import view_of
from vlmdsl.runtime.values import ImageFormat, TextValue


def page(text: str, size: int = 64, row_height: int = 16, smallest: int = 16) -> tuple[np.ndarray, Counter[str]]:
    context = ViewContext(0, 0, "k", ImageFormat(size))
    return render(text, {"row_height": row_height, "smallest": smallest}, context), context.counts


def rows_with_letters(image: np.ndarray, height: int) -> list[bool]:
    dark = (image[:, :, 0] < 100).any(axis=1)
    return [bool(dark[start : start + height].any()) for start in range(0, len(dark), height)]


def test_letters_are_dark_on_grey_and_capitals_are_small() -> None:
    image, counts = page("Ab")
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert image.max() == 127
    assert image.min() < 30
    assert (image[32:] == 127).all()
    assert np.array_equal(image, page("aB")[0])
    assert not np.array_equal(image, page("ba")[0])
    assert counts == Counter({"render: draws": 1})


def test_words_go_on_in_the_next_row_and_long_ones_are_broken() -> None:
    assert rows_with_letters(page("red")[0], 16) == [True, False, False, False]
    assert rows_with_letters(page("square circle")[0], 16) == [True, True, False, False]
    assert rows_with_letters(page("m" * 12)[0], 16) == [True, True, True, False]


def test_rows_shrink_until_the_text_fits_and_are_cut_only_then() -> None:
    text = "a large red square above a small green circle"
    kept, cut = page(text)
    assert cut["render: text truncated"] == 1
    assert rows_with_letters(kept, 16) == [True] * 4
    fitting, counts = page(text, smallest=6)
    assert counts["render: text truncated"] == 0
    assert not np.array_equal(kept, fitting)
    short = "red"
    assert np.array_equal(page(short)[0], page(short, smallest=6)[0])


def test_characters_that_the_font_lacks_are_counted() -> None:
    assert page("빨간 원")[1]["render: characters that the font lacks"] == 1
    assert page("été Ωμέγα")[1]["render: characters that the font lacks"] == 0


@settings(max_examples=40)
@given(st.text(max_size=60), st.integers(16, 40))
def test_any_text_is_a_page(text: str, size: int) -> None:
    image, _ = page(text, size, row_height=8, smallest=4)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert np.array_equal(image, page(text, size, row_height=8, smallest=4)[0])


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), (b"no font", "TrueType")])
def test_a_file_that_is_not_a_font_is_reported(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "letters.ttf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DiagnosticError, match=reason) as error:
        checked_font(str(path))
    assert [diagnostic.code for diagnostic in error.value.diagnostics] == ["V0826"]


def test_a_rendered_text_is_an_image_of_a_text_field_and_is_evaluated_without_its_draws() -> None:
    program = build("contrast(image, render(eda(summarize(text))))", expression=True).planned
    view = view_of(streams(program)[1].source)
    assert (view.field, view.field_kind, view.kind) == ("text", "Text", "Image")
    assert [operation for operation, _ in view.steps] == ["summarize", "eda", "render"]
    assert [operation for operation, _ in view.without_draws().steps] == ["summarize", "render"]
    context = ViewContext(0, 0, "k", ImageFormat(32), materials=Materials())
    image = view.without_draws().apply(TextValue("One. Two."), context)
    assert isinstance(image, np.ndarray)
    assert np.array_equal(image, render("One.", dict(view.steps[2][1]), context))


def test_the_first_sentences_are_a_summary() -> None:
    assert summarize("A dog. It runs! Fast.") == "A dog."
    assert summarize("A dog. It runs! Fast.", 2) == "A dog. It runs!"
    assert summarize("3.5 apples and no end") == "3.5 apples and no end"
    assert summarize("첫째。둘째。") == "첫째。"


def test_central_sentences_keep_their_order() -> None:
    text = "A cat and a dog. The weather is fine. A dog sees a cat. A cat sees a dog."
    assert summarize(text, 2, by="centrality") == "A dog sees a cat. A cat sees a dog."
    assert summarize("...", 1, by="centrality") == "..."
