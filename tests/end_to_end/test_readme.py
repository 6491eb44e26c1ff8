"""What README.md says is so: its program runs, its commands check, its tables and pictures are complete."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlmdsl
from vlmdsl.api.check import render

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_the_training_loop_runs_and_learns() -> None:
    (program,) = [text for text in PROGRAMS if "optimizer" in text]
    assert len(program.strip().splitlines()) <= 17
    program = "import torch; torch.manual_seed(0)\n" + program.replace('"clip", ', '"clip", compiled=False, ')
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    loss, term, temperature = (float(word) for word in finished.stdout.split())
    assert loss == term < 4.0  # chance is log 256 = 5.5
    assert 0.01 <= temperature < 0.2


@pytest.mark.slow
def test_the_trained_model_is_used_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = [text for text in PROGRAMS if "model.similarity" in text]
    (folder,) = [text for text in PROGRAMS if 'Path("pictures")' in text]
    monkeypatch.chdir(tmp_path)
    settings = {"train.batch": 8, "train.compile": False}
    vlmdsl.train("clip", data=["shapes:samples=16"], val=["shapes:samples=8"], steps=1, settings=settings, out="runs/clip-1")
    for name in ("cat.png", "dog.jpg"):
        Image.new("RGB", (40, 30), "white").save(name)
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["features"].shape[0] == 2
    assert names["probabilities"].sum(dim=1).tolist() == pytest.approx([1, 1])
    assert names["similarities"].shape == (1, 2)
    Path("pictures").mkdir()
    Image.new("RGB", (40, 30), "red").save("pictures/one.png")
    exec(compile(folder, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("one.png ")
    assert len([line for line in folder.splitlines() if line.strip() and "import" not in line]) <= 5


def test_every_bundled_recipe_has_its_line_and_says_what_it_was_checked_against() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))
    assert listed == {card.name for card in vlmdsl.recipes()}
    for card in vlmdsl.recipes():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{card.name}` |"))
        assert card.status.startswith("approximate") == ("approximate" in row)


def test_its_tables_have_every_method_of_the_survey_under_its_section() -> None:
    spec = importlib.util.spec_from_file_location("survey", ROOT / "docs" / "survey.py")
    assert spec is not None
    assert spec.loader is not None
    survey = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = survey  # dataclasses look their module up
    spec.loader.exec_module(survey)
    names = [card.name for card in vlmdsl.recipes()]
    assert len(survey.ROWS) == 35
    parts = {part.partition("\n")[0]: part for part in README.split("\n### ")}
    sections = survey.by_section(names)
    for section, recipes in sections.items():
        listed = re.findall(r"^\| `(\w+)` \|", parts[section], flags=re.MULTILINE)
        assert sorted(listed) == sorted(recipes), section
    for name in sections[survey.BEYOND]:
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert survey.objectives_of(name), f"`FURTHER` of docs/survey.py has no line for {name}"
        assert f"| {survey.objectives_of(name)} |" in row
    for row in survey.ROWS:
        lines = [line for line in parts[row.section].splitlines() if re.match(rf"\| [`\w–]+ \| {row.method}\b", line)]
        assert any(f"| {row.objectives} |" in line for line in lines), row.method
        own = survey.recipes_of(row, names)
        assert all(any(line.startswith(f"| `{name}` |") for line in README.splitlines()) for name in own), row.method
        assert own or "no recipe yet" in lines[0], row.method


def test_its_expressions_are_correct() -> None:
    expressions = re.findall(r"-e '([^']+)'", README) + re.findall(r"^    (contrast\(.*\))$", README, flags=re.MULTILINE)
    assert len(expressions) >= 2
    assert [vlmdsl.check(expression) for expression in expressions] == [[]] * len(expressions)


def test_its_recipes_are_correct_and_the_first_one_is_bundled() -> None:
    shown = re.findall(r"```\n(vlo 1\n.*?)```", README, flags=re.DOTALL)
    assert [vlmdsl.check(recipe) for recipe in shown] == [[], []]
    assert [vlmdsl.format(recipe) for recipe in shown] == shown
    assert shown[0] == (ROOT / "recipes" / "clip.vlo").read_text(encoding="utf-8")


def test_its_diagnostic_is_what_check_says() -> None:
    (shown,) = re.findall(r"```\n(error.*?)\n```", README, flags=re.DOTALL)
    recipe = "vlo 1\n\n\nrecipe mine(image: Image, text: Text)\n\n\n\nminimize contrast(image.pooled, text, sim=tokenmax)\n"
    assert render(vlmdsl.check(recipe, file="mine.vlo")).partition("\n\n")[0] == shown


def test_its_files_and_pictures_exist() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_its_effects_are_the_committed_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "effects.py"), "--table"]
    table = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert table.count("\n") > 5
    assert table in README
