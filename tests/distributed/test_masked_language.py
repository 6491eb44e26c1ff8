"""DeCLIP's whole model on several processes: loader, masked words, heads and queue give what one process gives."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import vlmdsl
from batches import streams_in_forms
from vlmdsl.backends.torch.cached import CachedStep
from vlmdsl.runtime.data import BatchLoader, Requirement, map_fields, open_source
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.training.processes import in_parallel
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, port
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS, SAMPLES, TEXT_LENGTH, IMAGE_SIZE = 2, 8, 20, 8
SIZES = {"size": 40, "hidden": 6, "bottleneck": 5, "share": 0.2}


def model_and_batches(rank: int, world: int, lowering: str) -> tuple[VisionLanguageModel, BatchLoader]:
    torch.manual_seed(0)
    objective = vlmdsl.compile("declip", compiled=False, lowering={"mlm": lowering}, **SIZES)
    tokenizer = train_tokenizer(["a large red circle", "two blue boxes"], 300).with_mask()
    text = TextConfig(width=8, depth=1, heads=1, vocabulary_size=tokenizer.vocabulary_size, text_length=TEXT_LENGTH)
    towers = {
        "vision": VisionTransformer(VisionConfig(IMAGE_SIZE, 4, 8, 1, 1), 8, ("pooled",)),
        "language": TextTransformer(text, 8, ("pooled", "vocabulary")),
    }
    model = VisionLanguageModel(towers, objective).double()
    source = open_source("shapes:samples=32,size=16")
    batches = BatchLoader(
        source,
        map_fields(source, [Requirement("image", "Image"), Requirement("text", "Text")]),
        streams_in_forms(model.readings, ImageFormat(IMAGE_SIZE), tokenizer, TEXT_LENGTH),
        batch=SAMPLES,
        rank=rank,
        world=world,
    )
    return model, batches


def precise(batch: Batch) -> Batch:
    """The batch with images in float64."""
    values = {
        name: ImageBatch(value.pixels.double()) if isinstance(value, ImageBatch) else value
        for name, value in batch.values.items()
    }
    return replace(batch, values=values)


def run(lowering: str, micro: int = 0) -> list[dict[str, Tensor]]:
    """Of each step the losses, the gradient of every weight, every state, and how many tokens this process asked for."""
    distributed = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    model, batches = model_and_batches(rank, world, lowering)
    # Buffers are compared below: they must come out equal without being sent.
    wrapped = model if micro else in_parallel(model)
    assert wrapped is model or not wrapped.broadcast_buffers
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = []
    for batch in itertools.islice(batches, STEPS):
        optimizer.zero_grad()
        if micro:
            step = CachedStep(model, micro)
            out = step(precise(batch))
            step.backward(out.loss)
        else:
            out = wrapped(precise(batch))
            out.loss.backward()
        record = {f"term {name}": value.detach() for name, value in out.terms.items()}
        record |= {f"gradient of {name}": value.grad.clone() for name, value in model.named_parameters()}
        record |= {f"state {name}": value.clone() for name, value in model.named_buffers()}
        records.append(record | {"selected": (batch.values[port("text_masked", "masked")].targets >= 0).sum()})
        optimizer.step()
        model.after_step()
    return records


def run_all(ways: list[tuple[str, int]]) -> list[list[dict[str, Tensor]]]:
    """The records of a run for each lowering and size of micro-batches, 0 for whole ones."""
    return [run(lowering, micro) for lowering, micro in ways]


@pytest.mark.parametrize(("world", "ways"), [(2, [("dense", 0), ("chunked", 3)]), (4, [("chunked", 0)])], ids=["2", "4"])
def test_declip_is_the_same_on_one_process_and_on_several(world: int, ways: list[tuple[str, int]]) -> None:
    expected, shares = run("dense"), run_processes(run_all, world, ways)
    for place in range(len(ways)):
        check([dict(step) for step in expected], [share[place] for share in shares])


def check(expected: list[dict[str, Tensor]], shares: list[list[dict[str, Tensor]]]) -> None:
    """The records of all processes are those of one."""
    for step, whole in enumerate(expected):
        selected = torch.stack([share[step].pop("selected") for share in shares])
        assert selected.sum() == whole.pop("selected")
        assert len(selected.unique()) > 1, "processes that hold as many chosen tokens show nothing about their mean"
        for share in shares:
            for name, value in whole.items():
                place = f"step {step}, {name}: "
                torch.testing.assert_close(
                    share[step][name], value, rtol=1e-9, atol=1e-11, msg=lambda text, place=place: place + text
                )
