"""What docs/micro_batches.md says of a hand-written loop is so: the gradient is that of the whole batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vlmdsl
from vlmdsl.backends.torch.collectives import average_gradients, own_slice
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.testing.distributed import run_processes

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "micro_batches.md").read_text(encoding="utf-8")


def documented() -> Callable[..., Any]:
    """The function of the page."""
    namespace: dict[str, Any] = {"torch": torch}
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(block, namespace)
    function: Callable[..., Any] = namespace["cached_step"]
    return function


def parts() -> tuple[Objective, nn.ModuleDict, dict[str, torch.Tensor]]:
    """An objective with a temperature, two encoders and this process's share of 10 pairs."""
    torch.manual_seed(0)
    encoders = nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)) for name in ("image", "text")}
    )
    inputs = {name: own_slice(torch.randn(10, 5, dtype=torch.float64)) for name in ("image", "text")}
    return vlmdsl.compile("clip", compiled=False).double(), encoders.double(), inputs


def gradients() -> dict[str, torch.Tensor]:
    """Loss and gradients of the function, averaged over processes as the page says."""
    objective, encoders, inputs = parts()
    output = documented()(objective, dict(encoders.items()), inputs, micro=2)
    parameters = [*encoders.parameters(), *objective.parameters()]
    average_gradients(parameters)
    return {"loss": output.loss.detach()} | {str(number): value.grad for number, value in enumerate(parameters)}


def of_the_whole_batch() -> dict[str, torch.Tensor]:
    """The same of one backward pass."""
    objective, encoders, inputs = parts()
    loss = objective(**{name: encoders[name](value) for name, value in inputs.items()}).loss
    loss.backward()
    parameters = [*encoders.parameters(), *objective.parameters()]
    return {"loss": loss.detach()} | {str(number): value.grad for number, value in enumerate(parameters)}


def test_the_gradient_is_that_of_the_whole_batch() -> None:
    torch.testing.assert_close(gradients(), of_the_whole_batch(), rtol=1e-10, atol=1e-12)


def test_so_it_is_on_two_processes() -> None:
    for share in run_processes(gradients, 2):
        torch.testing.assert_close(share, of_the_whole_batch(), rtol=1e-10, atol=1e-12)
