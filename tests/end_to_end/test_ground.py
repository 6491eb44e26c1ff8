"""Phrases in images: trained models of recipes with regions, asked about one image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import vlmdsl
from bundled.runs import columns_of, hyper_parameters_of, program_of
from vlmdsl.ir import encoder_of
from vlmdsl.ir.operations.grounding import CONCEPTS
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.evaluation.grounding import grounding_of
from vlmdsl.runtime.evaluation.phrase_scores import _in_texts
from vlmdsl.runtime.tracking.boxes import draw_boxes
from vlmdsl.runtime.trained.grounded import _scores
from vlmdsl.runtime.trained.pictures import checked_boxes
from vlmdsl_cli.main import application

DATA = "shapes:samples=24,objects=3"
PHRASES = ["red circle", "blue square", "green star"]


def trained(recipe: str, place: Path) -> Any:
    settings: dict[str, object] = {
        "train.batch": 8, "train.compile": False, "evaluation.limit": 8, "data.map": columns_of(program_of(recipe)),
    }  # fmt: skip
    knobs = hyper_parameters_of(recipe)
    run = vlmdsl.train(recipe, data=[DATA], val=[DATA], steps=2, settings=settings, out=place, knobs=knobs)
    return vlmdsl.load(run.folder)


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    return dict(open_source((DATA,), "val")[0])


@pytest.mark.parametrize("recipe", ["glip", "grounding_dino"])
def test_predicted_boxes_are_in_the_image_and_the_best_come_first(
    recipe: str, sample: dict[str, Any], tmp_path: Path
) -> None:
    model = trained(recipe, tmp_path / "run")
    image = np.asarray(sample["image"])
    wide = np.pad(image, ((0, 0), (40, 40), (0, 0)))  # the tower sees the square in the middle
    boxes, shifted = model.ground(image, PHRASES, most=7), model.ground(wide, PHRASES, most=7)
    assert len(boxes) == 7
    assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
    assert {box.phrase for box in boxes} <= set(PHRASES)
    for box, other in zip(boxes, shifted, strict=True):
        assert (box.phrase, box.score) == (other.phrase, other.score)
        expected = np.clip(np.array(other.box) - [40, 0, 40, 0], 0, 32)
        assert np.allclose(box.box, expected, atol=1e-4)
    own = [(0, 0, 16, 16), (8, 8, 30, 30)]
    named = model.ground(image, PHRASES, boxes=own)
    assert [box.box for box in named] == own
    moved = model.ground(wide, PHRASES, boxes=[(40, 0, 56, 16), (48, 8, 70, 30)])
    assert [box[1:] for box in moved] == [box[1:] for box in named]
    alone = model.ground(image, PHRASES[1], boxes=[(0, 0, 16, 16)])
    assert alone[0].phrase == PHRASES[1]


def test_the_command_prints_boxes_and_draws_them(tmp_path: Path, sample: dict[str, Any]) -> None:
    trained("glip", tmp_path / "run")
    Image.fromarray(np.asarray(sample["image"])).save(tmp_path / "scene.png")
    words = ["ground", str(tmp_path / "run"), str(tmp_path / "scene.png"), "--phrases", "red circle, blue square"]
    shown = CliRunner().invoke(application, [*words, "--best", "3", "--picture", str(tmp_path / "boxes.png")])
    assert shown.exit_code == 0, shown.output
    head, *rows = shown.output.splitlines()
    assert head.split() == ["score", "left", "top", "right", "bottom", "phrase"]
    scores = [float(row.split()[0]) for row in rows]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(row.endswith(("red circle", "blue square")) for row in rows)
    with Image.open(tmp_path / "boxes.png") as drawn:
        assert drawn.size == (480, 480)
        assert not np.array_equal(np.asarray(drawn), np.asarray(Image.fromarray(sample["image"]).resize(drawn.size)))
    as_json = CliRunner().invoke(application, [*words, "--box", "0,0,16,16", "--json"])
    (row,) = json.loads(as_json.output)["boxes"]
    assert row["box"] == [0, 0, 16, 16]
    failure = CliRunner().invoke(application, [*words, "--box", "0,0,16"])
    assert (failure.exit_code, "a --box is four numbers" in failure.output) == (2, True)


def test_a_frame_is_where_its_box_is(tmp_path: Path) -> None:
    draw_boxes(np.zeros((60, 120, 3), dtype=np.uint8), [((30, 24, 90, 48), "a\x1b[2Jcat", 0.5)], tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn:
        pixels = np.asarray(drawn)
    assert pixels.shape == (240, 480, 3)
    red = (pixels == (209, 36, 47)).all(axis=2)
    assert red[96:192, 120].all()  # the left edge
    assert red[192, 120:360].all()  # the bottom edge
    assert not red[110:185, 130:350].any()


def test_what_names_no_regions_is_refused(tmp_path: Path, sample: dict[str, Any]) -> None:
    model = trained("clip", tmp_path / "run")
    with pytest.raises(vlmdsl.DiagnosticError, match="names no regions"):
        model.ground(sample["image"], PHRASES)
    with pytest.raises(vlmdsl.DiagnosticError, match="V0860"):
        model.ground("missing.png", PHRASES)


@pytest.mark.parametrize("boxes", [[], [(0, 0, 99, 9)], [(5, 5, 5, 9)]])
def test_boxes_outside_the_image_are_refused(boxes: Any, sample: dict[str, Any]) -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="boxes cannot be used"):
        checked_boxes(boxes, np.asarray(sample["image"]))


@pytest.mark.parametrize(("recipe", "rivals"), [("mdetr", True), ("glip", False)])
def test_words_that_are_rivals_are_read_by_a_softmax_over_phrases(
    recipe: str, rivals: bool, sample: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MDETR's words compete for a box: phrases have a softmax of the means of their words' logits. GLIP's
    do not: each phrase has the mean of its words' sigmoids."""
    model = trained(recipe, tmp_path)
    grounding, objective = grounding_of(model.model.objective.program), model.model.objective
    assert grounding is not None
    assert grounding.text is not None
    value, logits = objective.value, list[torch.Tensor]()

    def drawn(node: Any, features: Any) -> torch.Tensor:
        result: torch.Tensor = value(node, features)
        if node is not grounding.logits:
            return result
        logits.append(torch.randn(result.shape, generator=torch.Generator().manual_seed(len(logits))))
        return logits[-1]

    monkeypatch.setattr(objective, "value", drawn)
    scores, _ = _scores(model.model, grounding, model.materials, np.asarray(sample["image"]), PHRASES, [(0, 0, 32, 32)])
    form = model.model.form(encoder_of(grounding.text).tower, "Text")
    concepts = grounding.text.inputs[0].operation is CONCEPTS
    ((_, word_map),) = _in_texts(PHRASES, form, concepts=concepts)
    words = [places.nonzero().flatten() for places in word_map[0][0]]
    assert all(len(places) > 1 for places in words)
    of_words = logits[0] if rivals else logits[0].sigmoid()
    expected = torch.stack([of_words[:, :, places].mean(dim=2) for places in words], dim=2)
    torch.testing.assert_close(scores.scores, expected.softmax(dim=2) if rivals else expected)
