"""Names that a recipe gives, and paths that it names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import vlmdsl

PLACES = [
    "contrast(image, text, temperature=learned(0.07, name={}))",
    "contrast(image, mix(text, by=beta(1, 1, name={})), temperature=0.07)",
    "contrast(image, mix(text, by=uniform(0, 1, name={})), temperature=0.07)",
    "memory_contrast(image, text, queue(text, size=16, name={}), temperature=0.07)",
    "contrast(image, text, weight=exp(running_mean(stop(score(image, text)), name={}) - 1))",
    "contrast(image, separate(language, name={})(text))",
    "contrast(shared(vision, language, name={})(image), text)",
    "contrast(project(vision, name={})(image), text)",
    "contrast(predict(vision, name={})(image), text)",
]
STRANGE = ["a b", "1a", 'x\\" + y + \\"', "a\\n", "\\u202ea", "a.b", "é", "a" * 65]


@pytest.mark.parametrize("place", PLACES)
def test_a_given_name_is_an_identifier(place: str) -> None:
    assert vlmdsl.check(place.format('"__import__"')) == []
    for name in STRANGE:
        (diagnostic,) = vlmdsl.check(place.format(f'"{name}"'))
        assert (diagnostic.code, diagnostic.primary.span.end - diagnostic.primary.span.start) == ("V0405", len(name) + 2), (
            name
        )


@pytest.mark.parametrize("name", ["forward", "training", "_emitted", "_blends", "state", "register_buffer", "T_destination"])
def test_a_learned_number_may_be_called_as_something_of_a_module(name: str) -> None:
    objective = vlmdsl.compile(f'contrast(image, text, temperature=learned(0.07, name="{name}"))', compiled=False)
    assert len(list(objective.parameters())) == 1


def test_a_field_or_a_draw_is_not_called_self() -> None:
    (diagnostic,) = vlmdsl.check("recipe mine(self: Image, text: Text)\nminimize contrast(self, text)")
    assert diagnostic.code == "V0215"
    objective = vlmdsl.compile(
        "let self = beta(1, 1)\nminimize contrast(image, mix(text, by=self), temperature=1)", compiled=False
    )
    assert "self_2" in objective.inputs


def test_use_reads_recipes_only(tmp_path: Path) -> None:
    recipe = "vlo 1\nrecipe mine(image: Image, text: Text)\nuse {} as other\nminimize other(image, text)\n"
    library = "recipe other(image: Image, text: Text)\nminimize contrast(image, text)\n"
    (tmp_path / "other.vlo").write_text(library)
    (tmp_path / "other.txt").write_text(library)
    (tmp_path / "large.vlo").write_text(library + "#" * 1_000_000)
    (tmp_path / "line\nend.vlo").write_text(library)
    (tmp_path / "folder.vlo").mkdir()
    os.mkfifo(tmp_path / "pipe.vlo")

    def codes(path: str) -> list[str]:
        return [diagnostic.code for diagnostic in vlmdsl.check(recipe.format(path), folder=tmp_path)]

    assert codes('"./other.vlo"') == []
    for path in ('"./other.txt"', '"./large.vlo"', '"./folder.vlo"', '"./pipe.vlo"', '"/dev/zero"', f'"{"x" * 5_000}.vlo"'):
        assert codes(path) == ["V0202"], path
    for path in ('"./line\\nend.vlo"', '"./a\\u0000.vlo"', '"./\\u202e.vlo"', '"./a\\u009b.vlo"'):
        assert codes(path) == ["V0214"], path


@pytest.mark.parametrize("file", ["a\x00b", "a" * 5_000, "a\nb.vlo", "\ud800", ""])
def test_any_name_may_be_shown_for_a_text(file: str) -> None:
    assert [diagnostic.code for diagnostic in vlmdsl.check("contrst(image, text)", file=file)] == ["V0201"]
