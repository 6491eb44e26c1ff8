"""`vlmdsl new`: a recipe of one's own, with a test that passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlmdsl
from cli.conftest import Run
from vlmdsl.api.new import new

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("recipe", ["clip", "declip", "mae", "zerovl", "chinese_clip"])
def test_a_bundled_recipe_can_be_begun_with(place: Path, recipe: str) -> None:
    """It means the same, has another name, and claims nothing about what it was checked against."""
    new("mine", source=recipe)
    assert vlmdsl.check(Path("mine.vlo").read_text()) == []
    text = Path("mine.vlo").read_text()
    assert "recipe mine(" in text
    assert "\nstatus " not in text
    assert vlmdsl.format(text) == text


def test_its_test_passes_and_its_settings_train(run: Run, place: Path) -> None:
    assert run("new", "mine", "--from", "declip").code == 0
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr
    run("new", "other")
    settings = ["--set", "train.compile=false", "--set", "train.batch=8", "--set", "data.train=shapes:samples=16"]
    trained = run("train", "other.vlo", "--config", "other.yaml", *settings, "--steps", "1", "--out", "run")
    assert trained.code == 0, trained.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("new", "Mine"), "V0864"),
        (("new", "../mine"), "V0864"),
        (("new", "mine", "--folder", "nowhere"), "V0864"),
        (("new", "mine", "--from", "clipp"), "V0202"),
        (("new", "mine", "--from", "contrast(image, text)"), "V0864"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_cannot_be_begun_is_said(run: Run, place: Path, words: tuple[str, ...], code: str) -> None:
    result = run(*words)
    assert (result.code, code in result.stderr) == (2, True)
    assert list(place.iterdir()) == []


def test_no_file_is_replaced(run: Run, place: Path) -> None:
    Path("test_mine.py").write_text("mine")
    assert "V0864" in run("new", "mine").stderr
    assert [path.name for path in place.iterdir()] == ["test_mine.py"]
