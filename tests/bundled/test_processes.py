"""Every bundled recipe: training on several processes leaves what training on one leaves, whatever its state.

After two steps of the loop with the loader, the towers, the heads, the teachers and the optimiser of a run: the losses, the
optimiser's moments (which are made of every gradient), the weights, queues, running means and batch statistics.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.recombined import RECOMBINED
from bundled.runs import (
    ALBEF_CORE,
    DATA,
    DROPPED_CONTEXT,
    NOISY,
    PER_SAMPLE,
    SETTINGS,
    columns_of,
    hyper_parameters_of,
    with_tiny_towers,
)
from vlmdsl.runtime.training.assembly import build_model, open_data, read_tokenizers, training_batches
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.reference import prepare
from vlmdsl.runtime.training.verification import trace
from vlmdsl.schema import RunConfig, load_config
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS = 2
BATCH = 12
RUNS = {**OBJECTIVES, "fusion": ALBEF_CORE, "contexts": DROPPED_CONTEXT, "kept": PER_SAMPLE, "noisy": NOISY, **RECOMBINED}
IN_CHUNKS = ("declip", "moco_v3", "fusion", "kept", "noisy", "fiber.coarse", "blip")
"""Those that run in micro-batches too: queues, teachers, batch statistics of heads, fusion, numbers kept per sample,
weights of samples in losses of tokens, inputs kept in a queue, modules that share weights."""


def configuration(columns: dict[str, str], micro: int | None) -> RunConfig:
    settings = SETTINGS | {"train.steps": STEPS, "train.batch": BATCH, "data.train": (DATA,), "data.map": columns}
    settings |= {} if micro is None else {"train.micro": micro}
    config, faults = load_config(flags=settings)
    assert config is not None, faults
    return config


def trained(recipe: str, micro: int | None = None) -> dict[str, Any]:
    """What a run of a recipe logged, and everything that its checkpoint would hold.

    Each process takes chunks of another size: of `micro` samples on the first one, of one sample more on the next.
    """
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    world = World(rank, size, torch.device("cpu"))
    objective = vlmdsl.compile(
        recipe, compiled=False, **(hyper_parameters_of(recipe) if recipe in OBJECTIVES.values() else {})
    )
    config = configuration(columns_of(objective.program), None if micro is None else micro + rank)
    data = open_data(objective.program, config)
    tokenizer = read_tokenizers(objective, config.model, data)
    model = build_model(objective, config, tokenizer, world, data.mapping.facts)
    if objective.state.per_sample:
        objective.state.allocate_samples(len(data.train))
    prepare(model, data, config)
    batches = training_batches(objective.program, config, data, model.double(), world)
    traces = trace(model, batches, config, world)
    return {f"{kind} {name}": value for kind, own in traces.items() for name, value in own.items()}


def all_trained(in_chunks: bool = False) -> dict[str, dict[str, Tensor]]:
    """Every run, and those in micro-batches as runs of their own, under the name with `in chunks`."""
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        runs = {name: trained(recipe) for name, recipe in RUNS.items()}
        return runs | ({f"{name} in chunks": trained(RUNS[name], 2) for name in IN_CHUNKS} if in_chunks else {})


@cache
def on_one() -> dict[str, dict[str, Tensor]]:
    return all_trained()


@pytest.mark.parametrize("processes", [2, 4])
def test_a_run_is_the_same_on_several_processes(processes: int) -> None:
    expected = on_one()
    shares = run_processes(all_trained, processes, True, timeout=300)
    different = []
    for run in shares[0]:
        for what, value in expected[run.removesuffix(" in chunks")].items():
            for share in shares:
                if not torch.allclose(share[run][what], value, rtol=1e-7, atol=1e-10, equal_nan=True):
                    different.append(f"{run}: {what} differs by {(share[run][what] - value).abs().max():.2g}")
                    break
    assert different == []
