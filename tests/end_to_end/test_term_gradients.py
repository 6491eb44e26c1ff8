"""Gradient norms of terms are right, and measuring them changes nothing of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vlmdsl
from vlmdsl.runtime.tracking import read_metrics
from vlmdsl.runtime.tracking.metrics import SPEED

DATA = ["shapes:samples=32"]
SETTINGS: dict[str, Any] = {
    "train.batch": 8,
    "train.compile": False,
    "tracking.report": False,
    "evaluation.every": 0,
    "train.log_every": 1,
}
TWICE = """recipe multiples(image: Image, text: Text)
let tau = learned(0.07)
minimize {
  once: contrast(image, text, temperature=tau)
  twice: 2 * contrast(image, text, temperature=tau)
}
"""
STATES = """recipe all_of_them(image: Image, text: Text)
use clip, moco, simclr
minimize {
  pairs: clip(image, text)
  keys: moco(image, size=32)
  views: simclr(image)
}
"""
FLOWS = """recipe pairs_and_views(image: Image, text: Text)
flow pairs(image, text) share 60% {
  minimize {
    softmax: contrast(image, text)
    sigmoid: sigmoid_contrast(image, text)
  }
}
flow views(image) share 40% {
  let views = augment(image, n=2)
  minimize {
    first: contrast(views[0], views[1], temperature=0.1)
    second: 0.5 * contrast(views[1], views[0], temperature=0.1)
  }
}
"""


def trained(
    recipe: str, out: Path, steps: int = 3, **settings: Any
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    options = {"expression": recipe != "clip", "settings": SETTINGS | named, "steps": steps, "out": out, "data": DATA}
    trainer = vlmdsl.Trainer(recipe, val=["shapes:samples=8"], **options)
    trainer.fit()
    return read_metrics(out / "metrics.jsonl"), trainer.model.state_dict()


@pytest.mark.parametrize("micro", [None, 3])
def test_the_norms_of_multiples_are_multiples(tmp_path: Path, micro: int | None) -> None:
    records, _ = trained(TWICE, tmp_path / "run", train__term_gradients_every=1, train__micro=micro)
    for record in records:
        assert record["twice.gradient_norm"] == pytest.approx(2 * record["once.gradient_norm"], rel=1e-4)
        assert record["gradient_norm"] == pytest.approx(3 * record["once.gradient_norm"], rel=1e-4)


@pytest.mark.parametrize("recipe", [STATES, FLOWS], ids=["teacher, queue and batch norms", "flows"])
def test_measuring_changes_nothing(tmp_path: Path, recipe: str) -> None:
    with_norms, weights = trained(recipe, tmp_path / "with", train__term_gradients_every=1)
    without, expected = trained(recipe, tmp_path / "without", train__term_gradients_every=0)
    assert all(any(name.endswith(".gradient_norm") for name in record) for record in with_norms)
    for records in (with_norms, without):
        for record in records:
            kept = {name: value for name, value in record.items() if not name.endswith(".gradient_norm")}
            record.clear()
            record.update(kept | dict.fromkeys(SPEED, 0.0))
    assert with_norms == without
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_a_single_term_costs_nothing(tmp_path: Path) -> None:
    records, _ = trained("clip", tmp_path / "run", train__term_gradients_every=1)
    assert not [name for record in records for name in record if name.endswith(".gradient_norm")]
