"""Checkpoints give back every bit, and one that is not whole does not count."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from unit.runtime.training.tiny import TinyModel, batches, config
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.training.checkpoint import (
    Position,
    load_checkpoint,
    newest_checkpoint,
    read_position,
    save_checkpoint,
)
from vlmdsl.runtime.training.loop import train_steps
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World

ALONE = World(0, 1, torch.device("cpu"))


def trained() -> tuple[TinyModel, torch.optim.AdamW]:
    torch.manual_seed(0)
    model, settings = TinyModel(), config(train_steps=3)
    optimizer = build_optimizer(model, settings.optimizer)
    train_steps(model, optimizer, batches(8), settings, ALONE)
    return model, optimizer


def at(step: int) -> Position:
    return Position(step, epoch=1, batch=step, seed=7)


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, model, optimizer, at(3), texts={"tokenizer.json": "{}"})
    other = TinyModel()
    fresh = build_optimizer(other, config().optimizer)
    assert load_checkpoint(folder, other, fresh) == at(3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert int(other.objective.steps) == 3
    before, after = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert before.keys() == after.keys()
    for index, moments in before.items():
        assert all(torch.equal(tensor, after[index][kind]) for kind, tensor in moments.items())
    assert (folder / "tokenizer.json").read_text() == "{}"


def test_moments_follow_the_names_when_the_order_changes(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, model, optimizer, at(3))
    reordered = TinyModel()
    # The same modules, registered in another order.
    reordered.embedding = reordered._modules.pop("embedding")
    fresh = build_optimizer(reordered, config().optimizer)
    load_checkpoint(folder, reordered, fresh)
    assert torch.equal(
        fresh.state[reordered.embedding.weight]["exp_avg"], optimizer.state[model.embedding.weight]["exp_avg"]
    )


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, model, optimizer, at(3))
    other = TinyModel()
    other.extra = torch.nn.Linear(2, 2)
    with pytest.raises(DiagnosticError, match=r"V0853.*extra"):
        load_checkpoint(folder, other, build_optimizer(other, config().optimizer))


def test_the_newest_are_kept_and_only_whole_ones_count(tmp_path: Path) -> None:
    model, optimizer = trained()
    for step in (2, 9, 10):
        save_checkpoint(tmp_path, model, optimizer, at(step), keep=2)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert read_position(newest).step == 10
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000009"
    # The damaged one is written again when the run comes by again.
    save_checkpoint(tmp_path, model, optimizer, at(10), keep=2)
    assert newest_checkpoint(tmp_path) == newest
    (newest / "state.json").unlink()
    shutil.rmtree(tmp_path / "step-00000009")
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_a_write_that_fails_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained()

    def fails(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, model, optimizer, at(1))
    assert newest_checkpoint(tmp_path) is None
    monkeypatch.undo()
    save_checkpoint(tmp_path, model, optimizer, at(2))
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000002"]
