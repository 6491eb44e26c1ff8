"""Rows of the survey whose numbers need more than one call: a teacher's squared error, a resized student, enriched texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vlmdsl
from oracles.cases import CASES

DATA = Path(__file__).parent / "data"
RESIZED = """
recipe resized(image: Image, text: Text, distillation = 0.5)
encoder taller = project(vision, out=24)
encoder teacher = frozen(separate(vision, name="teacher"))
minimize {
  contrast: contrast(image, text, temperature=learned(0.07, name="tau"))
  distillation: distillation * (1 + regress(taller(image), teacher(image), form="cosine"))
}
"""


def compared(name: str, recipe: str, **options: Any) -> tuple[dict[str, np.ndarray[Any, Any]], float, vlmdsl.Objective]:
    """The numbers that a recipe must give, how nearly, and its objective."""
    with np.load(DATA / f"{name}.npz") as arrays:
        stored = {key: arrays[key] for key in arrays.files}
    objective = vlmdsl.compile(recipe, **{"compiled": False, **options}).double()
    return stored, json.loads((DATA / f"{name}.json").read_text())["rtol"], objective


def leaf(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(array.copy()).requires_grad_()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_altclip_comes_near_its_teacher_for_a_text_and_its_translation(compiled: bool) -> None:
    arrays, rtol, objective = compared("altclip-teacher", "altclip", stage="distillation", compiled=compiled)
    student, teacher = leaf(arrays["student"]), torch.from_numpy(arrays["teacher"])
    for text, translation in ((student, teacher), (teacher, student)):  # the other one is where it should be
        student.grad = None
        loss = objective(text=text, translation=translation, text_teacher=teacher).loss
        loss.backward()
        torch.testing.assert_close(2 * loss.item(), float(arrays["out_total"]), rtol=rtol, atol=0)
        assert student.grad is not None
        torch.testing.assert_close(2 * student.grad, torch.from_numpy(arrays["grad_student"]), rtol=rtol, atol=1e-14)


def test_the_other_reading_of_altclip_sums_over_the_features() -> None:
    arrays, rtol, _ = compared("altclip-teacher", "altclip", stage="distillation")
    summed = 'recipe summed(image: Image, text: Text)\nminimize mean(-score(image, text, by=euclidean(reduction="sum")))'
    student, teacher = leaf(arrays["student"]), torch.from_numpy(arrays["teacher"])
    loss = vlmdsl.compile(summed, compiled=False).double()(image=student, text=teacher).loss
    loss.backward()
    torch.testing.assert_close(loss.item(), float(arrays["out_sum_per_sample"]), rtol=rtol, atol=0)
    assert student.grad is not None
    dimension = student.shape[1]  # by which the mean over the features, whose gradient is stored, divides
    torch.testing.assert_close(student.grad, dimension * torch.from_numpy(arrays["grad_student"]), rtol=rtol, atol=1e-14)


def test_chinese_clip_with_a_student_that_is_resized_like_a_picture() -> None:
    arrays, rtol, objective = compared("chineseclip-kd_widthmismatch", RESIZED)
    image, text = leaf(arrays["image_features"]), leaf(arrays["text_features"])
    with torch.no_grad():
        objective.get_parameter("tau_log_scale").fill_(float(arrays["log_scale"]))
    resized = functional.interpolate(
        image[None, None], size=arrays["teacher_features"].shape, mode="bilinear", align_corners=False
    )
    teacher = torch.from_numpy(arrays["teacher_features"])
    output = objective(image=image, text=text, image_project=resized[0, 0], image_teacher=teacher)
    output.loss.backward()
    torch.testing.assert_close(output.loss.item(), float(arrays["out_total"]), rtol=rtol, atol=0)
    for name, value in (("image", image), ("text", text)):
        expected = torch.from_numpy(arrays[f"grad_{name}_features"])
        assert value.grad is not None
        torch.testing.assert_close(value.grad, expected, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "terms"),
    [
        ("groupvit-multilabel", {"caption": "out_loss", "prompts": "out_multi_label_loss"}),
        ("chineseclip-kd", {"contrast": "out_contrastive", "distillation": "out_distill"}),
    ],
)
def test_terms_are_the_authors(case: str, terms: dict[str, str]) -> None:
    (own,) = (each for each in CASES if each.oracle == case)
    arrays, rtol = own.load()
    objective = vlmdsl.compile(own.recipe, compiled=False, stage=own.stage, **own.knobs).double()
    with torch.no_grad():
        for parameter, key in own.parameters.items():
            objective.get_parameter(parameter).fill_(float(arrays[key]))
    out = objective(**{name: torch.from_numpy(arrays[key].copy()) for name, key in own.inputs.items()})
    for term, key in terms.items():
        weight = float(own.knobs.get("distillation", 1.0)) if term == "distillation" else 1.0
        torch.testing.assert_close(out.terms[term].item(), weight * float(arrays[key]), rtol=rtol, atol=0)


def test_kelip_takes_the_mean_over_the_crops_of_an_image() -> None:
    arrays, rtol, objective = compared("kelip-multicrop-weighted", "kelip", stage="pairs", flow="english", crops=2, small=2)
    with torch.no_grad():
        objective.get_parameter("log_scale").fill_(float(arrays["logit_scale"]))
    crops, text = leaf(arrays["crops_raw"]), leaf(arrays["text_raw"])
    loss = objective(text=text, **{f"image_crop_{place}": crop for place, crop in enumerate(crops)}).loss
    loss.backward()
    torch.testing.assert_close(loss.item(), float(arrays["out_loss_per_crop"].mean()), rtol=rtol, atol=0)
    gradients = crops.grad, text.grad
    crops.grad = text.grad = None
    units, pairs = functional.normalize(text, dim=1), torch.arange(len(text))
    logits = [float(np.exp(arrays["logit_scale"])) * functional.normalize(crop, dim=1) @ units.T for crop in crops]
    halves = [functional.cross_entropy(each, pairs) + functional.cross_entropy(each.T, pairs) for each in logits]
    (torch.stack(halves).mean() / 2).backward()
    torch.testing.assert_close(gradients, (crops.grad, text.grad), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("name", "recipe"), [pytest.param("unicl-mixed", "klite"), pytest.param("unicl-labels", "klite")])
def test_klite_is_unicl_for_each_of_its_texts(name: str, recipe: str) -> None:
    arrays, rtol, objective = compared(name, recipe, missing=0)
    with torch.no_grad():
        objective.get_parameter("log_scale").fill_(float(arrays["log_scale"]))
    image, text, knowledge = leaf(arrays["image_x"]), leaf(arrays["text_x"]), leaf(arrays["text_x"])
    loss = objective(image=image, text=text, knowledge=knowledge, label=torch.from_numpy(arrays["label"])).loss
    loss.backward()
    torch.testing.assert_close(loss.item(), float(arrays["out_total"]), rtol=rtol, atol=0)
    assert text.grad is not None
    assert knowledge.grad is not None
    torch.testing.assert_close(text.grad, knowledge.grad)
    torch.testing.assert_close(text.grad + knowledge.grad, torch.from_numpy(arrays["grad_text_x"]), rtol=rtol, atol=1e-12)


def test_clippy_is_clip_with_the_largest_entries_of_the_patches() -> None:
    arrays, rtol, objective = compared("clip-openclip", "clippy")
    with torch.no_grad():
        objective.get_parameter("log_scale").fill_(float(arrays["log_scale"]))
    largest, text = torch.from_numpy(arrays["image_features"]), leaf(arrays["text_features"])
    place = torch.randint(3, largest.shape, generator=torch.Generator().manual_seed(0))
    patches = (largest[:, None] - 1).repeat(1, 3, 1).scatter(1, place[:, None], largest[:, None]).requires_grad_()
    loss = objective(image_tokens=patches, text=text).loss
    loss.backward()
    torch.testing.assert_close(loss.item(), float(arrays["out_total"]), rtol=rtol, atol=0)
    assert patches.grad is not None
    torch.testing.assert_close(
        patches.grad.gather(1, place[:, None])[:, 0], torch.from_numpy(arrays["grad_image_features"]), rtol=rtol, atol=1e-12
    )
    torch.testing.assert_close(patches.grad.sum(1), torch.from_numpy(arrays["grad_image_features"]), rtol=rtol, atol=1e-12)
