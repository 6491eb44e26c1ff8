"""Queues hold, and neighbours are, what those of the authors' code are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vlmdsl
from oracles.cases import DATA
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.backends.torch.values import Memory


def load(oracle: str) -> dict[str, Tensor]:
    with np.load(DATA / f"{oracle}.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def filled(objective: Objective, queue: Tensor, pointer: int) -> dict[str, Any]:
    """The state of a full queue [Q, D] whose next slot is `pointer`."""
    return {**objective.state_dict(), "state.keys": queue, "state.keys_written": torch.tensor(len(queue) + pointer)}


def check_moco(oracle: str, temperature: float, *, compiled: bool) -> None:
    arrays = load(oracle)
    objective = vlmdsl.compile("moco", compiled=compiled, temperature=temperature, size=32).double()
    objective.load_state_dict(filled(objective, arrays["queue"].T, int(arrays["queue_ptr"])))
    q, k = arrays["q"].requires_grad_(), arrays["k"].requires_grad_()
    loss = objective(image_augment_moco_v2_0_project=q, image_augment_moco_v2_1_project_teacher=k).loss
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays["out_loss"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(q.grad, arrays["grad_q"], rtol=1e-9, atol=1e-12)
    assert k.grad is None
    torch.testing.assert_close(objective.state.keys, arrays["out_queue_after"].T, rtol=1e-12, atol=1e-15)
    assert int(objective.state.keys_written) % 32 == int(arrays["out_queue_ptr_after"])


@pytest.mark.parametrize(("oracle", "temperature"), [("moco_v1-queue", 0.07), ("moco_v2-queue", 0.2)])
def test_moco(oracle: str, temperature: float) -> None:
    check_moco(oracle, temperature, compiled=False)


@pytest.mark.slow
def test_moco_compiled() -> None:
    check_moco("moco_v2-queue", 0.2, compiled=True)


def test_neighbours_of_declip() -> None:
    """Ours keeps directions, its bank keeps lengths too. Its bank drops the part of a batch that does not fit at the end,
    ours continues at the first slot, so the writes of the last step differ by intention."""
    arrays = load("declip-bank")
    memory = Memory(arrays["bank"].T, torch.tensor(12))
    for step, batch in enumerate(ops.normalize(arrays["batches"])):
        nearest = ops.nearest(ops.similarity(batch, memory, by="dot"), memory, batch)
        expected = ops.normalize(arrays[f"out_neighbour1_step{step}"])
        torch.testing.assert_close(nearest, expected, rtol=1e-6, atol=1e-7)
        memory = ops.enqueue(memory, batch)
        bank = ops.normalize(arrays[f"out_bank_step{step}"].T)
        stored = slice(None) if step < 2 else slice(3, None)
        torch.testing.assert_close(memory.values[stored], bank[stored], rtol=1e-6, atol=1e-7)
        assert step == 2 or int(memory.written) % 12 == int(arrays[f"out_ptr_step{step}"])
    assert int(memory.written) == 12 + 15
    torch.testing.assert_close(memory.values[:3], batch[2:])
