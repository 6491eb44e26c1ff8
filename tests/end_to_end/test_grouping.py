"""GroupViT with the tower that groups: it trains, its groups move, and a run resumes bit-identically."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

import vlmdsl
from vlmdsl.runtime.modules.towers import build_encoder

SETTINGS = {
    "model.image_encoder": "groupvit:tiny",
    "train.batch": 16,
    "train.compile": False,
    "tracking.report": False,
    "train.log_every": 1,
    "train.checkpoint_every": 6,
    "train.device": "cpu",
    "evaluation.limit": 40,
}
HYPER_PARAMETERS = {"hidden": 32, "out": 16}


def segments(checkpoint: Path, images: torch.Tensor) -> torch.Tensor:
    tower = build_encoder("groupvit:tiny", "Image", 64, ["pooled"])
    weights = load_file(checkpoint / "model.safetensors")
    own = "encoders.vision."
    tower.load_state_dict({name.removeprefix(own): value for name, value in weights.items() if name.startswith(own)})
    return tower.segment(images, level=0)  # type: ignore[operator]


def test_it_trains_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    data = ["shapes:samples=64"]
    run = vlmdsl.train(
        "groupvit", knobs=HYPER_PARAMETERS, data=data, steps=12, settings=SETTINGS, out=tmp_path / "run"
    ).folder
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    results = json.loads((run / "evaluation.json").read_text())
    assert results["retrieval"]["image_to_text"].keys() >= {"R@1", "chance", "untrained"}
    half, last = (run / "checkpoints" / f"step-{step:08}" for step in (6, 12))
    images = 2 * torch.rand(8, 3, 32, 32) - 1
    assert not torch.equal(segments(half, images), segments(last, images))
    whole = load_file(last / "model.safetensors")
    shutil.rmtree(last)
    vlmdsl.train(resume=run)
    resumed = load_file(last / "model.safetensors")
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    assert json.loads((run / "evaluation.json").read_text()) == results
