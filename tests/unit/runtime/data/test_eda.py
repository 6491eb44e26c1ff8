"""Easy data augmentation: what each operation may change, and what happens without synonyms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data.context import Materials, ViewContext
from vlmdsl.runtime.data.eda import eda
from vlmdsl.runtime.data.synonyms import in_place_of, read_synonyms, synonyms_of
from vlmdsl.runtime.values import ImageFormat

TEXT = "A big red square, above a small circle"
SYNONYMS = {"big": ("large", "huge"), "small": ("tiny",)}


def edited(
    *operations: str, text: str = TEXT, words: int = 1, deletion: float = 0.1, synonyms: object = None, key: str = "k"
):
    context = ViewContext(0, 0, key, ImageFormat(8), Counter(), Materials(synonyms))
    attributes = {"operations": operations, "words": words, "deletion": deletion, "draw": 1}
    return eda(text, attributes, context).text.split(), context.counts


def test_a_swap_exchanges_two_words() -> None:
    for number in range(50):
        words, _ = edited("swap", key=str(number))
        assert sorted(words) == sorted(TEXT.split())
        assert sum(a != b for a, b in zip(words, TEXT.split(), strict=True)) == 2


def test_each_word_is_deleted_with_its_chance_and_one_is_left() -> None:
    lengths = [len(edited("deletion", deletion=0.25, key=str(number))[0]) for number in range(1000)]
    assert sum(lengths) / len(lengths) == pytest.approx(0.75 * 8, abs=0.15)
    assert all(len(edited("deletion", deletion=1, key=str(number))[0]) == 1 for number in range(20))


def test_a_synonym_takes_the_place_of_one_word() -> None:
    counts = Counter(" ".join(edited("synonym", synonyms=SYNONYMS, key=str(number))[0]) for number in range(400))
    assert set(counts) == {TEXT.replace("big", "large"), TEXT.replace("big", "huge"), TEXT.replace("small", "tiny")}
    assert counts[TEXT.replace("small", "tiny")] == pytest.approx(200, abs=40)


def test_both_words_are_replaced_if_two_are_wanted() -> None:
    words, _ = edited("synonym", words=2, synonyms={"big": ("large",), "small": ("tiny",)})
    assert " ".join(words) == "A large red square, above a tiny circle"


def test_insertions_are_synonyms_of_words_of_the_text() -> None:
    words, _ = edited("insertion", words=3, synonyms=SYNONYMS)
    assert len(words) == 11
    assert Counter(words) - Counter(TEXT.split()) <= Counter(dict.fromkeys(("large", "huge", "tiny"), 3))


def test_operations_are_drawn_alike() -> None:
    lengths = Counter(len(edited("swap", "deletion", deletion=1, key=str(number))[0]) for number in range(600))
    assert lengths[1] == pytest.approx(300, abs=60)


def test_without_synonyms_another_operation_is_drawn_and_counted() -> None:
    words, counts = edited("synonym", "swap")
    assert sorted(words) == sorted(TEXT.split()) != words
    assert counts["eda: operation that needs `data.synonyms` left out"] == counts["eda: draws"] == 1
    unchanged, counts = edited("synonym")
    assert unchanged == TEXT.split()
    assert counts["eda: text unchanged"] == 1


@given(st.text(max_size=40), st.integers(0, 5))
def test_any_text_stays_a_text_and_the_same_draw_gives_the_same(text: str, key: int) -> None:
    if not text.split():
        return
    first, _ = edited("swap", "deletion", "synonym", "insertion", text=text, synonyms=SYNONYMS, key=str(key))
    again, _ = edited("swap", "deletion", "synonym", "insertion", text=text, synonyms=SYNONYMS, key=str(key))
    assert first
    assert first == again


def test_a_line_of_the_file_is_a_set_of_synonyms(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("# sizes\nlarge, big,  very   big \nsmall,tiny # and so on\nalone\nBig, major\n", encoding="utf-8")
    synonyms = read_synonyms(str(path))
    assert synonyms["big"] == ("large", "very big", "major")
    assert synonyms_of("Tiny,", synonyms) == ("small",)
    assert synonyms_of("alone", synonyms) == ()
    assert in_place_of('"Tiny",', "small") == '"Small",'


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "file not found"), (b"one\ntwo\n", "no line"), (b"\xff\xfe\xfa", "UTF-8")]
)
def test_a_file_without_synonyms_is_reported(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "synonyms.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DiagnosticError, match=reason) as error:
        read_synonyms(str(path))
    assert [diagnostic.code for diagnostic in error.value.diagnostics] == ["V0825"]
