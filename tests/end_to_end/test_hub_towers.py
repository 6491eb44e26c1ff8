"""A run with towers of a hub is loaded, measured and resumed without it: all that it needs is in its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlmdsl

IN_A_PROCESS = """
import json, shutil, sys
from pathlib import Path

import numpy as np
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file

import vlmdsl

run, cache = sys.argv[1], Path(constants.HF_HUB_CACHE)
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
vlmdsl.train("clip", data=["shapes:samples=24"], steps=2, settings=settings, out=run)
picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
expected = vlmdsl.load(run).encode_image(picture)
shutil.rmtree(cache)
model = vlmdsl.load(run)
assert torch.equal(model.encode_image(picture), expected)
tower = model.model.encoders["vision"]
assert tower.pooling == "first", tower.pooling
assert tower.image_format.mean == (0.1, 0.2, 0.3), tower.image_format
trained = load_file(Path(run) / "checkpoints" / "step-00000002" / "model.safetensors")
untrained = vlmdsl.evaluate(run).evaluation["retrieval"]["image_to_text"]["untrained"]
assert untrained == json.loads((Path(run) / "untrained.json").read_text())["retrieval"]["image_to_text"]["untrained"]
assert "nothing is asked of a hub" in vlmdsl.evaluate(run, data=["shapes:samples=16,seed=3"]).table
assert all(torch.equal(value, trained[f"encoders.vision.{name}"]) for name, value in tower.state_dict().items())
vlmdsl.train(resume=run, steps=3)
"""


def test_a_run_with_a_tower_of_a_hub_is_loaded_without_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    run = tmp_path / "run"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, str(run)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = run / "kept" / "settings" / "model.image_encoder"
    assert sorted(file.name for file in kept.iterdir()) == ["config.json", "preprocessor_config.json"]
    assert (run / "checkpoints" / "step-00000003").is_dir()
    (kept / "config.json").write_text("{}")
    with pytest.raises(vlmdsl.DiagnosticError, match="SHA-256 differs"):
        vlmdsl.load(run)
