"""Runs with weights spread over processes: the numbers of one process, resumed by any number of them."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlmdsl.runtime.tracking import read_metrics
from vlmdsl.testing.distributed import run_processes
from vlmdsl_cli.main import main

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

VAL = "shapes:samples=12,size=16"
SETTINGS = (
    "model.image_size=16", "model.dimension=12", "train.batch=8",
    "train.compile=false", "train.checkpoint_every=2", "train.log_every=1", "schedule.warmup_steps=2", "evaluation.limit=8",
    "evaluation.every=2",
)  # fmt: skip


def trained(words: list[str]) -> list[str]:
    """The exit code of `vlmdsl train` with these words, and what it says."""
    with redirect_stderr(io.StringIO()) as said:
        code = main(["train", *words])
    return [str(code), said.getvalue()]


def run(processes: int, *words: str, **settings: object) -> tuple[int, str]:
    """`vlmdsl train` in so many processes: the exit code of the first one, and what it says."""
    command = [*words, "--val", VAL]
    for setting in (*SETTINGS, *(f"{name.replace('__', '.')}={value}" for name, value in settings.items())):
        command += ["--set", setting]
    code, said = run_processes(trained, processes, command, timeout=300)[0] if processes > 1 else trained(command)
    return int(code), said


def tensors(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights, state and moments of a checkpoint."""
    files = ("model.safetensors", "optimizer.safetensors")
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    return {name: value for file in files for name, value in load_file(checkpoint / file).items()}


def test_four_processes_save_what_one_saves_and_two_continue_from_it(tmp_path: Path) -> None:
    recipe = ("moco_v3", "--param", "hidden=16", "--param", "out=10", "--data", "shapes:samples=32,size=16")
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    for processes, folder, parallel in ((1, whole, "replicated"), (4, spread, "sharded")):
        code, said = run(processes, *recipe, "--steps", "4", "--out", str(folder), train__parallel=parallel)
        assert code == 0, said
    expected, actual = tensors(whole, 4), tensors(spread, 4)
    # In float32 AdamW's division makes much of rounding; `bundled/test_sharded.py` compares in float64.
    assert {name: value.shape for name, value in actual.items()} == {name: value.shape for name, value in expected.items()}
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-4)
    shutil.rmtree(spread / "checkpoints" / "step-00000004")
    code, said = run(2, "--resume", str(spread), train__parallel="sharded")
    assert code == 0, said
    assert "from step 2" in said
    torch.testing.assert_close(tensors(spread, 4), expected, rtol=1e-2, atol=1e-4)
    assert [record["step"] for record in read_metrics(spread / "metrics.jsonl")] == [1, 2, 3, 4]
    evaluations = [json.loads((folder / "evaluation.json").read_text()) for folder in (whole, spread)]
    assert evaluations[0].keys() == evaluations[1].keys()


def test_a_loss_that_is_not_finite_is_reported_of_spread_weights_too(tmp_path: Path) -> None:
    words = ("clip", "--data", "shapes:samples=32,size=16", "--steps", "8", "--out", str(tmp_path / "run"))
    code, said = run(2, *words, train__parallel="sharded", optimizer__learning_rate=1e30, train__clip_gradient_norm="null")
    assert code != 0
    assert "error[V0819]" in said, said
