"""Views of images from a recipe to training: what they mean for the loss, and that runs with them go through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vlmdsl
from vlmdsl.runtime.values import TowerInput, count

SETTINGS = {"train.batch": 16, "train.compile": False, "tracking.report": False, "evaluation.limit": 60}


def features(objective: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, 8, generator=generator, dtype=torch.float64) for name in objective.inputs}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("images", "texts", "count"),
    [
        ('augment(image, n=2, pipeline="byol")', 'rewrite(text, M=2, pick="each")', 6),
        ("multi_crop(image, n=2, small=2)", 'rewrite(text, M=1, pick="each")', 8),
        ('drop(augment(image, n=3, pipeline="slip"), share=25%)', "text", 3),
        ("multi_crop(image, n=1, small=2)", "text", 3),
    ],
)
def test_a_contrast_of_sets_is_the_mean_over_their_product(images: str, texts: str, count: int) -> None:
    objective = vlmdsl.compile(f"contrast({images}, {texts}, temperature=0.1)", expression=True, compiled=False)
    batch = features(objective)
    single = vlmdsl.compile("contrast(image, text, temperature=0.1)", expression=True, compiled=False)
    streams = [[value for name, value in batch.items() if name.startswith(kind)] for kind in ("image", "text")]
    pairs = [single(image=image, text=text).loss for image in streams[0] for text in streams[1]]
    assert len(pairs) == count
    torch.testing.assert_close(objective(**batch).loss, torch.stack(pairs).mean())


@pytest.mark.parametrize(
    "recipe",
    [
        "flip",
        "contrast(multi_crop(image, n=1, small=2, small_side=50%), text)",
        'contrast(drop(augment(image, n=2, pipeline="moco_v3"), share=25%), text)',
    ],
)
def test_runs_train_and_evaluate_with_the_calls_of_the_plan(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, called = [], TowerInput.call

    def counted(inputs, tower):
        calls.extend([count(inputs.value)] if torch.is_grad_enabled() else [])
        return called(inputs, tower)

    monkeypatch.setattr(TowerInput, "call", counted)
    text = recipe if recipe == "flip" else f"recipe viewed(image: Image, text: Text)\nminimize {recipe}\n"
    trainer = vlmdsl.Trainer(text, data=["shapes:samples=64"], steps=3, settings=SETTINGS, out=tmp_path / "run")
    result = trainer.fit()
    assert set(result.evaluation) >= {"retrieval"}
    planned = vlmdsl.plan(text, batch=16).calls
    assert sorted(calls) == sorted(3 * [call.samples for call in planned])
