"""Heads mean the same on several processes as on one: losses, gradients of weights and features, running statistics."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import vlmdsl
from batches import batch_of
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.ir import Head
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.heads import MultilayerHead
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
from vlmdsl.runtime.values import ImageBatch
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES, STEPS = 8, 2
SMALL = {
    "simclr": {"hidden": 6, "out": 5},
    "moco_v3": {"hidden": 6, "out": 5},
    "simsiam": {"hidden": 6, "out": 5, "bottleneck": 3},
    "byol": {"hidden": 6, "out": 5},
}


def run(recipe: str) -> list[dict[str, Tensor]]:
    """Every step's loss, gradients (as DDP's mean would give them) and everything in the model's state."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    torch.manual_seed(0)
    tower = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, ("pooled",))
    objective = vlmdsl.compile(recipe, compiled=False, **SMALL[recipe])
    model = VisionLanguageModel({"vision": tower}, objective, steps=STEPS).double().train()
    records = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        images = {
            reading.name: own_slice(torch.rand(SAMPLES, 3, 8, 8, generator=generator, dtype=torch.float64)).requires_grad_()
            for reading in model.readings
        }
        model.zero_grad()
        keys = [""] * (SAMPLES // processes)
        loss = model(batch_of({name: ImageBatch(value) for name, value in images.items()}, keys)).loss
        loss.backward()
        record = {"loss": loss.detach()}
        record |= {f"image {name}": value.grad / processes for name, value in images.items() if value.grad is not None}
        learned = {name: value for name, value in model.named_parameters() if value.requires_grad}
        record |= {f"gradient {name}": value.grad / processes for name, value in learned.items()}
        record |= {f"state {name}": value.clone() for name, value in model.named_buffers()}
        with torch.no_grad():
            for value in learned.values():
                gradient = value.grad.clone()
                if dist.is_initialized():
                    dist.all_reduce(gradient)
                value -= 0.1 * gradient / processes
        model.after_step()
        records.append(record)
    return records


def run_all() -> dict[str, list[dict[str, Tensor]]]:
    return {recipe: run(recipe) for recipe in SMALL}


@pytest.mark.parametrize("processes", [2, 4])
def test_heads_do_not_depend_on_the_number_of_processes(processes: int) -> None:
    expected = run_all()
    shares = run_processes(run_all, processes)
    for recipe in SMALL:
        assert any("running_variance" in name for name in expected[recipe][0])
        for step in range(STEPS):
            parts = [share[recipe][step] for share in shares]
            for what, whole in expected[recipe][step].items():
                values = [part[what] for part in parts]
                if what.startswith("image"):
                    values = [torch.cat(values)]
                elif what.startswith("gradient"):
                    values = [torch.stack(values).sum(dim=0)]
                place = f"{recipe}, step {step}, {what}: "
                for value in values:
                    torch.testing.assert_close(
                        value, whole, rtol=1e-9, atol=1e-11, msg=lambda text, place=place: place + text
                    )


LOCAL = Head("h", 1, 0, 3, "none", "batch", "relu", "none", "local", "each")


def local_norm() -> dict[str, Tensor]:
    """What a head with each process's own statistics makes of this process's samples, its gradients and its state."""
    torch.manual_seed(0)
    module = MultilayerHead(LOCAL, 4).double()
    features = own_slice(
        torch.randn(SAMPLES, 4, dtype=torch.float64) * torch.arange(1.0, SAMPLES + 1)[:, None]
    ).requires_grad_()
    (output,) = module([features])
    (output * torch.arange(output.numel()).reshape(output.shape)).sum().backward()
    results = {"output": output.detach(), "gradient": features.grad}
    return (
        results
        | {f"gradient {name}": value.grad for name, value in module.named_parameters()}
        | dict(module.named_buffers())
    )


def test_local_statistics_are_those_of_each_process() -> None:
    """Outputs and gradients as of torch's own batch norm on the process's samples; the running statistics are the mean."""
    shares = run_processes(local_norm, 2)
    torch.manual_seed(0)
    linear = MultilayerHead(LOCAL, 4).double().layers[0]
    features = torch.randn(SAMPLES, 4, dtype=torch.float64) * torch.arange(1.0, SAMPLES + 1)[:, None]
    running = []
    for share, own in zip(shares, features.chunk(2), strict=True):
        norm = nn.BatchNorm1d(3).double()
        own.requires_grad_()
        output = norm(linear(own))
        gradient = torch.autograd.grad((output * torch.arange(output.numel()).reshape(output.shape)).sum(), own)[0]
        torch.testing.assert_close(share["output"], output)
        torch.testing.assert_close(share["gradient"], gradient)
        running.append((norm.running_mean, norm.running_var))
    for share in shares:
        for name, parts in zip(("running_mean", "running_variance"), zip(*running, strict=True), strict=True):
            torch.testing.assert_close(share[f"layers.1.{name}"], torch.stack(parts).mean(dim=0))
