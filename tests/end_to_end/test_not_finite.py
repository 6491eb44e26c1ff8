"""A loss that is not finite: the run ends with a file that says which samples, tensors and settings the step had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.training.not_finite import tensor_facts

SETTINGS = {
    "train.batch": 8,
    "train.compile": False,
    "train.log_every": 1,
    "evaluation.limit": 16,
    "data.val": ("shapes:samples=16",),
}


def test_the_step_is_written_into_the_run_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    high = {"optimizer.learning_rate": 1e30, "train.clip_gradient_norm": None, "schedule.warmup_steps": 0}
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train("clip", data=["shapes:samples=32"], steps=30, settings=SETTINGS | high, seed=3, out=out)
    (diagnostic,) = caught.value.diagnostics
    (file,) = out.glob("not-finite-step-*.json")
    assert diagnostic.code == "V0819"
    assert diagnostic.help[0].startswith(f"`{file}` holds the samples")
    facts = json.loads(file.read_text())
    assert diagnostic.message == f"{facts['what']} is not finite at step {facts['step']}"
    assert file.name == f"not-finite-step-{facts['step']}.json"
    assert (facts["seed"], facts["recipe"], facts["processes"], facts["checkpoint"]) == (3, "clip", 1, 0)
    assert facts["settings"]["optimizer"]["learning_rate"] == 1e30
    assert len(set(facts["samples"]["keys"])) == len(facts["samples"]["indices"]) == 8
    assert facts["batch"]["image"]["pixels"]["shape"] == [8, 3, 32, 32]
    assert facts["batch"]["image"]["pixels"]["not_finite"] == 0
    assert facts["terms"]["contrast"] in ("nan", "inf")
    assert facts["first_module"].split(".")[0] in ("encoders", "parts")
    assert facts["weights"]["largest"] > 1e25


def test_ranges_are_of_finite_numbers() -> None:
    facts = tensor_facts(torch.tensor([[1.0, float("inf")], [-3.0, float("nan")]]))
    assert facts == {"shape": [2, 2], "dtype": "float32", "not_finite": 2, "least": -3.0, "largest": 1.0, "mean": -1.0}
    assert tensor_facts(torch.zeros(0, dtype=torch.int64)) == {"shape": [0], "dtype": "int64", "not_finite": 0}
    assert tensor_facts(torch.tensor([True, False]))["mean"] == 0.5


def test_the_page_of_the_code_says_how_to_use_the_file() -> None:
    page = vlmdsl.explain("V0819").to_text()
    for word in ("not-finite-step-N.json", "first_module", "samples.keys", "--resume FOLDER"):
        assert word in page
