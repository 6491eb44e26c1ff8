"""A group of one process on a CUDA device: every exchange passes through nccl, and changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bundled.runs import with_tiny_towers
from bundled.test_micro_batches import model_and_batch
from vlmdsl.backends.torch import collectives
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.sharding import Sharded
from vlmdsl.schema import RunConfig

DEVICE, BACKEND = torch.device("cuda"), "nccl"
SAMPLES = torch.arange(4)
EXCHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "gather": collectives._AllGather.apply,
    "sum": collectives._AllReduceSum.apply,
    "scatter": collectives._ReduceScatter.apply,
    "transpose": collectives._Transposed.apply,
    "fetch": lambda local: collectives._Fetch.apply(local, SAMPLES.to(local.device)),
}
"""Each is the identity in a group of one process, but for the transpose."""


@pytest.fixture(autouse=True)
def group_of_one(tmp_path: Path) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group(BACKEND, store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_an_exchange_gives_its_samples_and_their_gradient(name: str, compiled: bool) -> None:
    torch._dynamo.reset()
    exchange = EXCHANGES[name]
    run = torch.compile(exchange, fullgraph=True) if compiled and name != "fetch" else exchange
    local = torch.randn(4, 4, device=DEVICE, requires_grad=True)
    weights = torch.randn(4, 4, device=DEVICE)
    exchanged = run(local)
    (exchanged * weights).sum().backward()
    turned = name == "transpose"
    torch.testing.assert_close(exchanged, local.T if turned else local)
    torch.testing.assert_close(local.grad, weights.T if turned else weights)


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")  # a view as an output, which nothing is added to in place
@pytest.mark.parametrize("recipe", ["declip", "moco_v3"])
@pytest.mark.parametrize("parallel", ["replicated", "sharded"])
def test_a_step_of_one_process_is_the_step_without_a_group(
    recipe: str, parallel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tiny_towers(monkeypatch)
    config, world = RunConfig().optimizer, World(0, 1, DEVICE)
    alone, batch = model_and_batch(recipe)
    alone, batch = alone.to(DEVICE), batch.to(DEVICE)
    model = copy.deepcopy(alone)
    own, optimizer = build_optimizer(alone, config), build_optimizer(model, config)
    sharded = Sharded(model, optimizer, config, world) if parallel == "sharded" else None
    stepping, taken = (DistributedDataParallel(model), optimizer) if sharded is None else (sharded.model, sharded.optimizer)
    for _ in range(2):
        for part, its in ((alone, own), (stepping, taken)):
            part(batch).loss.backward()
            its.step()
            its.zero_grad()
        alone.after_step()
        (model if sharded is None else sharded.model).after_step()
    if sharded is not None:
        sharded.gather()
    torch.testing.assert_close(model.state_dict(), alone.state_dict(), rtol=1e-7, atol=1e-9)
