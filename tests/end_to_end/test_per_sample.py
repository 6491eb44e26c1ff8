"""Runs that keep numbers of all samples: averages as of SogCLR, and noise found by a mixture after every epoch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vlmdsl
from bundled.runs import PER_SAMPLE, SETTINGS, with_tiny_towers

SAMPLES, PER_EPOCH, WHOLE = 24, 3, 7


def train(run: Path, patch: pytest.MonkeyPatch, half: int) -> None:
    with_tiny_towers(patch)
    settings = SETTINGS | {"train.checkpoint_every": half, "train.keep": WHOLE}
    vlmdsl.train(PER_SAMPLE, data=[f"shapes:samples={SAMPLES},size=16"], settings=settings, steps=WHOLE, out=run)


def state_after(run: Path, step: int, folder: str = "checkpoints") -> dict[str, torch.Tensor]:
    weights = load_file(run / folder / f"step-{step:08d}" / "model.safetensors")
    return {name.removeprefix("objective.state."): value for name, value in weights.items() if ".state." in name}


def test_every_step_writes_its_samples_and_every_epoch_fits_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(run, monkeypatch, half=1)
    states = {step: state_after(run, step) for step in range(1, WHOLE + 1)}
    assert [int(states[step]["u_mean"].isfinite().sum()) for step in (1, 2, 3, 4)] == [8, 16, 24, 24]
    assert all(states[1]["u_mean"].shape == (SAMPLES,) for _ in states)
    fits = [step for step in states if step > 1 and not torch.equal(states[step]["noise"], states[step - 1]["noise"])]
    assert fits == [PER_EPOCH, 2 * PER_EPOCH]
    assert not states[1]["noise"].any()
    assert 0.0 <= states[3]["noise"].min() < 0.5 < states[3]["noise"].max() <= 1.0
    elsewhere = vlmdsl.evaluate(run, data=["shapes:samples=12,size=16,seed=3"]).evaluation
    assert elsewhere["step"] == WHOLE  # the table is that of the training data, whatever is measured


@pytest.mark.parametrize("half", [2, 3, 5], ids=["within the first epoch", "between two epochs", "within the second"])
def test_a_resumed_run_is_the_same_bit_for_bit(half: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    train(run, monkeypatch, half)
    shutil.copytree(run, kept)
    for folder in (run / "checkpoints").iterdir():
        if folder.name != f"step-{half:08d}":
            shutil.rmtree(folder)
    vlmdsl.train(resume=run)
    end = Path("checkpoints") / f"step-{WHOLE:08d}"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (run / end / name).read_bytes() == (kept / end / name).read_bytes()


STAGED = """vlo 1
recipe staged(image: Image, text: Text)
let s = score(image, text)
let kept = mean((1 - s) * exp(running_mean(s, per="sample", momentum=0.5, name="kept")))
stage first {
  minimize kept
}
stage second from first {
  minimize kept + contrast(image, text)
}
"""


@pytest.mark.parametrize("other", [False, True], ids=["the same data", "other data"])
def test_a_stage_keeps_the_numbers_of_its_own_samples_only(
    other: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tiny_towers(monkeypatch)
    data = f"shapes:samples={SAMPLES},size=16"
    settings = SETTINGS | {"stages.second.train.steps": 1, "train.keep": WHOLE}
    settings |= {"stages.second.data.train": (f"{data},seed=7",)} if other else {}
    run = tmp_path / "run"
    vlmdsl.train(STAGED, data=[data], settings=settings, steps=2, out=run)
    assert int(state_after(run, 2, "stages/first")["kept"].isfinite().sum()) == 16
    kept = int(state_after(run, 3)["kept"].isfinite().sum())
    assert kept == 8 if other else kept >= 16
