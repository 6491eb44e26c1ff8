from __future__ import annotations

import pytest

from vlmdsl.diagnostics import closest, suggestion

FUNCTIONS = ["contrast", "cosine", "tokenmax", "tokenmean", "where", "min", "max", "log"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tokenmx", "tokenmax"),
        ("tokenmaen", "tokenmean"),
        ("TokenMax", "tokenmax"),
        ("contrat", "contrast"),
        ("wehre", "where"),
        ("lgo", "log"),
        ("mix", "min"),
        ("cos", "cosine"),
        ("tok", None),
        ("co", None),
        ("queue", None),
        ("x", None),
        ("", None),
        ("c" * 100_000, None),
    ],
)
def test_closest(name: str, expected: str | None) -> None:
    assert closest(name, FUNCTIONS) == expected


def test_the_same_word_in_another_case_wins_over_a_likelier_spelling() -> None:
    assert closest("IMAGE", ["images", "image"]) == "image"


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        (["text"], "the fields: only `text`"),
        (["text", "label"], "the fields are `text` and `label`"),
        ([], ""),
        ([f"column{index}" for index in range(12)], "`column9` and 2 more"),
    ],
)
def test_suggestion_lists_what_is_possible(candidates: list[str], expected: str) -> None:
    assert suggestion("queue", candidates, "the fields").endswith(expected)


def test_suggestion_prefers_the_probable_one() -> None:
    assert suggestion("txt", ["text", "label"]) == "did you mean `text`?"
