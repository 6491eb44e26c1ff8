"""Processes whose samples have different numbers of concepts and of boxes train as one process does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from bundled.objectives import OBJECTIVES
from bundled.runs import with_tiny_towers
from bundled.test_micro_batches import model_and_batch
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.values import Batch, BoxBatch, ConceptBatch, Value, WordMaps
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CONCEPTS, BOXES = (2, 1, 2, 1, 6, 3, 4, 6), (1, 1, 1, 1, 2, 3, 1, 3)
"""Of each sample of the batch: the first process has few."""


def fewer(batch: Batch, rank: int) -> Batch:
    """The share of a process with fewer concepts and boxes, which is padded to its own sample with the most boxes."""
    places = range(rank * len(batch), (rank + 1) * len(batch))
    concepts, boxes = (torch.tensor([counts[place] for place in places]) for counts in (CONCEPTS, BOXES))

    def cut(value: Value) -> Value:
        if isinstance(value, BoxBatch):
            kept = torch.arange(value.boxes.shape[1]) < boxes[:, None]
            return BoxBatch((value.boxes * kept[..., None])[:, : int(boxes.max())])
        if isinstance(value, ConceptBatch):
            kept = torch.arange(value.real.shape[1]) < concepts[:, None]
            return ConceptBatch(value.ids * kept[..., None], value.tokens & kept[..., None], value.real & kept)
        if isinstance(value, WordMaps):
            named = torch.arange(value.words.shape[1]) < boxes[:, None]
            real = torch.arange(value.words.shape[2]) < concepts[:, None]
            return WordMaps((value.words & named[:, :, None] & real[:, None, :])[:, : int(boxes.max())])
        return value

    return replace(batch, values={name: cut(value) for name, value in batch.values.items()})


def gradients(name: str) -> dict[str, Tensor]:
    """The loss and every gradient, the mean over the processes."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        model, batch = model_and_batch(OBJECTIVES[name], World(rank, size, torch.device("cpu")))
    output = model(fewer(batch, rank))
    output.loss.backward()
    results = {"loss": output.loss.detach()}
    for key, weight in model.named_parameters():
        if weight.grad is not None:
            if size > 1:
                dist.all_reduce(weight.grad)
            results[key] = weight.grad / size
    return results


def all_gradients() -> dict[str, dict[str, Tensor]]:
    return {name: gradients(name) for name in ("detclip", "regionclip.regions")}


def test_concepts_and_boxes_of_any_number_on_each_process() -> None:
    expected = all_gradients()
    for share in run_processes(all_gradients, 2):
        torch.testing.assert_close(share, expected, rtol=1e-9, atol=1e-12)
    assert all(any(bool(value.any()) for key, value in own.items() if key != "loss") for own in expected.values())
