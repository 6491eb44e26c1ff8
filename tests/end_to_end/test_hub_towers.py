"""A run with towers of a hub is loaded, measured and resumed without it: all that it needs is in its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlmdsl

HUB = """
import json, shutil, sys
from pathlib import Path

import numpy as np
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file

import vlmdsl

run, cache = Path(sys.argv[1]), Path(constants.HF_HUB_CACHE)
torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
config = transformers.ViTConfig(image_size=32, patch_size=8, **small)
saved = cache / "models--someone--tiny-vit"
folder = saved / "snapshots" / ("0" * 40)
folder.mkdir(parents=True)
(saved / "refs").mkdir()
(saved / "refs" / "main").write_text("0" * 40)
# Without its pooler, as a model that was trained for something else: the first token is read.
transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
(folder / "preprocessor_config.json").write_text(
    '{"image_processor_type": "ViTImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
)
settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 8, "tracking.report": False}
settings |= {"model.image_encoder": "hf:someone/tiny-vit", "train.device": "cpu", "schedule.final": 1.0}
"""
LOADED = """
vlmdsl.train("clip", data=["shapes:samples=24"], steps=2, settings=settings, out=run)
picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
expected = vlmdsl.load(run).encode_image(picture)
shutil.rmtree(cache)
model = vlmdsl.load(run)
assert torch.equal(model.encode_image(picture), expected)
tower = model.model.encoders["vision"]
assert tower.pooling == "first", tower.pooling
assert tower.image_format.mean == (0.1, 0.2, 0.3), tower.image_format
trained = load_file(run / "checkpoints" / "step-00000002" / "model.safetensors")
untrained = vlmdsl.evaluate(run).evaluation["retrieval"]["image_to_text"]["untrained"]
assert untrained == json.loads((run / "untrained.json").read_text())["retrieval"]["image_to_text"]["untrained"]
assert "nothing is asked of a hub" in vlmdsl.evaluate(run, data=["shapes:samples=16,seed=3"]).table
assert all(torch.equal(value, trained[f"encoders.vision.{name}"]) for name, value in tower.state_dict().items())
vlmdsl.train(resume=run, steps=3)
"""


STAGES = """vlo 1

recipe staged(image: Image, text: Text)
encoder words = project(language, layers=2, out=64)

let tau = learned(0.07, max_scale=100)

stage warm {
  minimize contrast(image, text, temperature=tau)
}

stage main from warm {
  minimize contrast(words(text), image, temperature=tau)
}
"""
RESUMED = """
recipe, copy = run.with_name("staged.vlo"), run.with_name("copy")
recipe.write_text(sys.argv[2])
settings |= {"stages.warm.train.steps": 2, "stages.main.train.steps": 1, "train.checkpoint_every": 1, "train.keep": 3}
vlmdsl.train(recipe, data=["shapes:samples=24"], settings=settings, out=run)
shutil.copytree(run, copy)
for folder in ("checkpoints/step-00000002", "checkpoints/step-00000003", "stages"):
    shutil.rmtree(copy / folder)
(copy / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines(keepends=True)[0])
shutil.rmtree(cache)
vlmdsl.train(resume=copy)
whole, resumed = (load_file(folder / "checkpoints" / "step-00000003" / "model.safetensors") for folder in (run, copy))
assert any("language_project" in name for name in whole)
different = [name for name, value in whole.items() if not torch.equal(value, resumed[name])]
assert not different, different
"""


def in_a_process(tmp_path: Path, code: str, *arguments: str) -> Path:
    """The folder of a run that `code` makes where `HUB` is all that is on the hub."""
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    run = tmp_path / "run"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB + code, str(run), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def test_a_run_with_a_tower_of_a_hub_is_loaded_without_it(tmp_path: Path) -> None:
    run = in_a_process(tmp_path, LOADED)
    kept = run / "kept" / "settings" / "model.image_encoder"
    assert sorted(file.name for file in kept.iterdir()) == ["config.json", "preprocessor_config.json"]
    assert (run / "checkpoints" / "step-00000003").is_dir()
    (kept / "config.json").write_text("{}")
    with pytest.raises(vlmdsl.DiagnosticError, match="SHA-256 differs"):
        vlmdsl.load(run)


def test_a_run_of_stages_is_resumed_without_the_hub_of_its_towers(tmp_path: Path) -> None:
    in_a_process(tmp_path, RESUMED, STAGES)
