"""What each command does beside printing: files it writes, standard input, what machines read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import Run

RECIPES = Path(__file__).parent / "recipes"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_reads_standard_input_and_expressions(run: Run) -> None:
    result = run("check", "--json", "-", "-e", "contrst(image, text)", stdin=b"minimize contrast(image, txt)")
    assert result.code == 2
    diagnostics = json.loads(result.stdout)["diagnostics"]
    assert [(fault["code"], fault["file"]) for fault in diagnostics] == [("V0201", "<stdin>"), ("V0201", "<expression>")]


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\x00", b"", b"(" * 10_000, "\u202e".encode()])
def test_check_answers_any_bytes_with_a_diagnostic(run: Run, text: bytes, place: Path) -> None:
    (place / "strange.vlo").write_bytes(text)
    for result in (run("check", "-", stdin=text), run("check", "strange.vlo")):
        assert result.code == 2
        assert "error[V01" in result.stderr


@pytest.mark.parametrize("name", ["a" * 5000, "\\0", "none", "folder"])
def test_a_file_that_cannot_be_used_is_a_diagnostic(run: Run, place: Path, name: str) -> None:
    (place / "folder.vlo").mkdir()
    (place / "mine.vlo").write_text(f'use "./{name}.vlo" as other\nminimize other(image, text)\n')
    result = run("check", "mine.vlo")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("error[V0")


@pytest.mark.parametrize("word", ["", "a" * 5000 + ".vlo", "a" * 5000])
def test_a_word_that_is_not_a_path_is_a_diagnostic(run: Run, place: Path, word: str) -> None:
    for command in ("check", "fmt"):
        result = run(command, word)
        assert (result.code, result.stdout) == (2, "")
        assert result.stderr.startswith("error[V0")


def test_check_takes_folders(run: Run, place: Path) -> None:
    (place / "deep").mkdir()
    for name in ("a.vlo", "deep/b.vlo"):
        shutil.copy(RECIPES / "card.vlo", place / name)
    (place / "note.txt").write_text("no recipe")
    assert run("check", ".").stderr == "2 recipes are correct\n"


def test_check_passes_hyper_parameters(run: Run) -> None:
    assert run("check", "clip", "--param", "temperature=0.1").code == 0
    assert "V0210" in run("check", "clip", "--param", "temprature=0.1").stderr


def test_check_fix_corrects_what_is_safe_and_reports_the_rest(run: Run, place: Path) -> None:
    recipe = place / "mine.vlo"
    recipe.write_text("vlo 1\n\nminimize contrast(image, txt, temperature=.07)\n")
    result = run("check", "--fix", "mine.vlo")
    assert result.code == 2
    assert recipe.read_text() == "vlo 1\n\nminimize contrast(image, txt, temperature=0.07)\n"
    assert "fixed mine.vlo" in result.stderr
    assert "error[V0201]" in result.stderr
    assert "V0108" not in result.stderr


def test_check_fix_goes_on_until_nothing_is_left_to_fix(run: Run, place: Path) -> None:
    recipe = place / "mine.vlo"
    recipe.write_text("vlo 1\n\nminimise contrast(image.pooled, text.pooled, sim=tokenmax)\n")
    assert "`vlmdsl check --fix` can fix 1" in run("check", "mine.vlo").stderr
    assert run("check", "--fix", "mine.vlo").code == 0
    assert recipe.read_text() == "vlo 1\n\nminimize contrast(image, text, sim=tokenmax)\n"


@pytest.mark.parametrize(
    "expression",
    ["let i = image.pooled in contrast(i, text, sim=tokenmax)", "contrast((image).pooled, text, sim=tokenmax)"],
)
def test_a_place_that_another_value_may_share_gets_no_fix(run: Run, place: Path, expression: str) -> None:
    recipe = place / "mine.vlo"
    recipe.write_text(f"minimize {expression}\n")
    result = run("check", "--fix", "mine.vlo")
    assert "V0304" in result.stderr
    assert "--fix" not in result.stderr
    assert recipe.read_text() == f"minimize {expression}\n"


def test_check_without_fix_writes_nothing(run: Run, place: Path) -> None:
    recipe = place / "mine.vlo"
    recipe.write_text("minimize contrast(image, text, temperature=.07)\n")
    assert run("check", "mine.vlo").code == 2
    assert recipe.read_text() == "minimize contrast(image, text, temperature=.07)\n"


def test_fmt_rewrites_files_once(run: Run, place: Path) -> None:
    recipe = Path(shutil.copy(RECIPES / "untidy.vlo", place / "untidy.vlo"))
    first = run("fmt", ".")
    formatted = recipe.read_text()
    assert (first.code, first.stdout, first.stderr) == (0, "", "formatted untidy.vlo\n")
    assert formatted.startswith("vlo 1\n\n# A comment stays where it is.\nrecipe untidy(image: Image, text: Text)\n")
    assert (run("fmt", "untidy.vlo").stderr, recipe.read_text()) == ("", formatted)
    assert run("fmt", "--check", "untidy.vlo").code == 0


def test_fmt_check_and_diff_write_nothing(run: Run, place: Path) -> None:
    recipe = Path(shutil.copy(RECIPES / "untidy.vlo", place / "untidy.vlo"))
    before = recipe.read_text()
    assert run("fmt", "--check", "untidy.vlo").code == 2
    assert run("fmt", "--diff", "untidy.vlo").code == 0
    assert recipe.read_text() == before


def test_fmt_goes_on_after_a_file_that_does_not_parse(run: Run, place: Path) -> None:
    for name in ("a.vlo", "c.vlo"):
        (place / name).write_text("minimize contrast(image, text\n")
    (place / "b.vlo").write_text("contrast( )")
    result = run("fmt", "a.vlo", "b.vlo", "c.vlo")
    assert result.code == 2
    assert (place / "b.vlo").read_text() == "contrast()\n"
    assert [name for name in ("a.vlo:1", "c.vlo:1") if name in result.stderr] == ["a.vlo:1", "c.vlo:1"]
    assert result.stderr.rstrip().endswith("2 errors")


def test_fmt_is_a_filter(run: Run) -> None:
    result = run("fmt", "-", stdin=b"contrast( image,text )")
    assert (result.code, result.stdout, result.stderr) == (0, "contrast(image, text)\n", "")


@pytest.mark.parametrize("subject", ["clip", "V0304", "tokenmax"])
def test_explain_is_data_for_machines(run: Run, subject: str) -> None:
    page = json.loads(run("explain", subject, "--json").stdout)
    assert page["kind"] in {"recipe", "diagnostic", "primitive"}


def test_explain_names_every_column_that_a_recipe_needs(run: Run) -> None:
    assert "  text_rewrites: Rewrites (rewrites of the text" in run("explain", "groupvit").stdout
    assert "  key: Key (identifies each sample: no column is needed)\n" in run("explain", "ra_clip").stdout
    assert "rewrites" not in run("explain", "clip").stdout


def test_explain_latex_of_what_has_none(run: Run) -> None:
    result = run("explain", "V0304", "--latex")
    assert (result.code, result.stdout) == (2, "")


def test_plan_is_data_for_machines(run: Run) -> None:
    planned = json.loads(run("plan", "filip", "--batch", "256", "--world", "2", "--dim", "64", "--json").stdout)
    assert (planned["batch"], planned["world"], planned["dim"]) == (256, 2, 64)
    assert [region["lowering"] for region in planned["regions"]] == ["chunked", "dense"]


def test_plan_dumps_the_graph_after_a_pass(run: Run) -> None:
    assert "similarity(" in run("plan", "clip", "--dump", "ir").stdout
    assert "contrast(" in run("plan", "clip", "--dump", "fuse").stdout


def test_diff_speaks_of_meaning(run: Run, place: Path) -> None:
    (place / "other.vlo").write_text("# another text, the same loss\nminimize contrast(image, text)\n")
    same = run("diff", "clip", "other.vlo")
    assert (same.code, same.stdout) == (0, "")
    different = run("diff", "clip", "align")
    assert different.code == 0
    assert "-learned log_scale" in different.stdout


def test_recipes_lists_what_is_bundled(run: Run) -> None:
    cards = json.loads(run("recipes", "--json").stdout)
    clip = next(card for card in cards if card["name"] == "clip")
    assert clip["citations"] == ["arXiv:2103.00020"]
    listed = run("recipes").stdout
    assert all(card["name"] in listed for card in cards)


def test_emit_prints_a_module(run: Run) -> None:
    source = run("emit", "clip").stdout
    compile(source, "emitted.py", "exec")
    assert "def objective" in source
