"""`vlmdsl overfit`: few samples are learned, or the likely reason is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cli.conftest import Run

TINY = ("--samples", "8", "--set", "model.image_size=16")
SCENES = ("--data", "shapes:samples=64,size=16,distinct=true", *TINY)


def test_what_a_recipe_can_learn_it_learns(run: Run) -> None:
    result = run("overfit", "clip", "--steps", "30", *SCENES, "--json")
    assert result.code == 0, result
    overfitting = json.loads(result.stdout)
    [stage] = overfitting["stages"]
    assert stage["terms"]["contrast"]["accuracy"] == 1.0
    assert (stage["samples"], overfitting["advice"]) == (8, [])


def test_every_stage_is_tried(run: Run) -> None:
    result = run("overfit", "kelip", "--steps", "2", *SCENES)
    assert "reconstruct" in result.stdout
    assert "korean.contrast" in result.stdout


@pytest.mark.parametrize(("rate", "word"), [("1e-5", "low"), ("0.2", "high")])
def test_a_wrong_learning_rate_is_named_where_another_one_learns(run: Run, rate: str, word: str) -> None:
    settings = ("--set", f"optimizer.learning_rate={rate}", "--set", "schedule.warmup_steps=2")
    result = run("overfit", "clip", "--steps", "30", *settings, *SCENES)
    assert result.code == 2
    assert f"is too {word}" in result.stdout


def test_equal_captions_are_named(run: Run) -> None:
    result = run("overfit", "clip", "--steps", "20", "--map", "text=class_name", *SCENES)
    assert result.code == 2
    assert "of `text` are not unique: such samples cannot be told apart" in result.stdout


def test_equal_images_are_named_and_so_are_their_features(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "black.png")
    rows = "".join(f"black.png,text {number}\n" for number in range(8))
    (tmp_path / "pairs.csv").write_text(f"image,text\n{rows}")
    result = run("overfit", "clip", "--steps", "20", "--data", str(tmp_path / "pairs.csv"), *TINY)
    assert result.code == 2
    assert "100% of `image` are not unique" in result.stdout
    assert "the features of the tower `vision` are the same for all samples" in result.stdout


def test_frozen_towers_are_named(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "still.vlo"
    recipe.write_text(
        "vlo 1\nrecipe still(image: Image, text: Text)\nencoder vision = frozen(vision)\n"
        "encoder language = frozen(language)\nminimize contrast(image, text, temperature=learned(0.07))\n"
    )
    result = run("overfit", str(recipe), "--steps", "10", *SCENES)
    assert result.code == 2
    assert "the tower `vision` is frozen" in result.stdout


WRITER = """vlo 1
recipe writer(image: Image, text: Text)
encoder captioner = text_decoder(depth=1, width=32)
minimize next_token(linear(captioner(text, image)), text)
"""


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [(60, 0, "the samples are learned"), (15, 2, "15 steps are too few: with `--steps 60` they are")],
)
def test_captions_are_learned_when_their_tokens_are_predicted(
    run: Run, tmp_path: Path, steps: int, code: int, words: str
) -> None:
    recipe = tmp_path / "writer.vlo"
    recipe.write_text(WRITER)
    settings = ("--map", "text=caption", "--set", "model.text_length=16", "--set", "schedule.warmup_steps=2")
    fast = ("--set", "optimizer.learning_rate=1e-2", "--samples", "4", "--steps", str(steps))
    result = run("overfit", str(recipe), *SCENES, *settings, *fast)
    assert result.code == code, result
    assert "captions.token accuracy" in result.stdout
    assert words in result.stdout
