"""Whatever a recipe or the name of a file holds, no command prints what could control a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmdsl.diagnostics import controls
from vlmdsl_cli.main import main

STRANGE = "\x1b[2J\x07\u202e\x9b\u2066"
RECIPE = f"""vlo 1

## Clears the screen {STRANGE}
recipe mine(image: Image, text: Text, mode = "{STRANGE}")
cite "someone {STRANGE}"
status "verified {STRANGE}"

## And again {STRANGE}
minimize contrast(image, text)  # {STRANGE}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.vlo"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints, on both streams, which must be safe."""
    main(words)
    captured = capsys.readouterr()
    assert not controls((captured.out + captured.err).replace("\n", ""))
    return captured.out + captured.err


def test_pages_of_a_recipe(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Clears the screen �[2J" in said(capsys, "explain", "mine.vlo")
    assert "contrast" in said(capsys, "plan", "mine.vlo")
    assert "similarity" in said(capsys, "plan", "mine.vlo", "--dump", "ir")
    assert "def objective" in said(capsys, "emit", "mine.vlo")
    assert "input" in said(capsys, "diff", "mine.vlo", "siglip")


def test_json_keeps_the_text_as_escapes(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = said(capsys, "explain", "mine.vlo", "--json")
    assert r"\u202e" in written
    assert json.loads(written)["citations"] == [f"someone {STRANGE}"]
    for words in (["plan", "mine.vlo", "--json"], ["check", "mine.vlo", "--json"]):
        json.loads(said(capsys, *words))


@pytest.mark.parametrize("style", ["text", "json", "github"])
def test_messages_that_quote_a_recipe(recipe: Path, style: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE.replace("image, text)", f'image, text, sim="{STRANGE}", directions="{STRANGE}")'), "utf-8")
    assert "V0" in said(capsys, "check", "mine.vlo", "--format", style)


@pytest.mark.parametrize("command", ["check", "explain", "plan", "emit", "fmt", "train"])
def test_a_file_whose_name_controls_the_terminal_is_not_read(
    command: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a\x1b[2J.vlo", "a\nb.vlo", "a\u202eb.vlo"):
        recipe.with_name(name).write_text("contrast(image, text)", encoding="utf-8")
        assert "V0214" in said(capsys, command, name)
        assert recipe.with_name(name).read_text("utf-8") == "contrast(image, text)"


def test_words_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ch\x1beck"], ["plan", "clip", "--param", "\x1b=1"], ["plan", "clip", "--\x1b"], ["explain", "\x1b"]):
        assert said(capsys, *words)


def test_a_formatted_recipe_is_exact_where_a_program_reads_it(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["fmt", "--diff", str(recipe)])
    assert STRANGE in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    said(capsys, "fmt", "--diff", str(recipe))
