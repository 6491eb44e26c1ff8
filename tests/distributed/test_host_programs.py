"""Several processes: unequal sizes end in an error everywhere, FSDP2 takes a whole model, second derivatives are exact."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import vlmdsl
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.testing.distributed import run_processes
from vlmdsl.testing.laws import example_features

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
LABELLED = "recipe labelled(image: Image, text: Text, label: Label)\nminimize contrast(image, text, targets=same(label))"


def message(objective: vlmdsl.Objective, **features: Tensor) -> str:
    try:
        objective(**features)
    except (TypeError, ValueError) as fault:
        return str(fault)
    return "no error"


def unequal() -> list[str]:
    rank = dist.get_rank()
    objective = vlmdsl.compile("clip", compiled=False)
    tokenwise = vlmdsl.compile("filip", compiled=False)
    batch, length, width = torch.randn(4 + 2 * rank, 8), 3 + rank, 8 + 8 * rank
    mask = torch.ones(4, length, dtype=torch.bool)
    return [
        message(objective, image=batch, text=batch),
        message(objective, image=torch.randn(4, width), text=torch.randn(4, width)),
        message(tokenwise, image_tokens=torch.randn(4, 2, 8), text_tokens=torch.randn(4, length, 8), text_mask=mask),
        message(objective, image=torch.randn(4, 8), text=torch.randn(4 - rank, 8)),  # one process's own mistake
        message(objective, image=torch.randn(4, 8), text=torch.randn(4, 8)),
    ]


def test_sizes_that_differ_are_named_on_every_process() -> None:
    first, second = run_processes(unequal, 2)
    assert first[0] == second[0]
    assert "image is float32 [4, 8] on process 0, float32 [6, 8] on process 1" in first[0]
    assert "text is float32 [4, 8] on process 0, float32 [4, 16] on process 1" in first[1]
    assert "text_mask is bool [4, 3] on process 0, bool [4, 4] on process 1" in second[2]
    assert second[3] == "the inputs disagree on the axis B (samples): image has 4, text has 3"
    assert first[3].startswith("process 1 received invalid features")
    assert first[4] == second[4] == "no error"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(6, 4).double(), nn.Linear(6, 4).double()
        self.objective = vlmdsl.compile("siglip", compiled=False).double()

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return self.objective(image=self.image(image), text=self.text(text)).loss


def whole(value: Tensor) -> Tensor:
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().reshape(-1)


def steps(shard: bool) -> dict[str, Tensor]:
    """The weights after two steps, on one process or sharded over all."""
    model = Model()
    if shard:
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        image, text = (torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(2))
        model(own_slice(image), own_slice(text)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        model.objective.after_step()
    return {name: whole(value) for name, value in model.named_parameters()}


def sharded() -> dict[str, Tensor]:
    return steps(shard=True)


def test_fully_sharded_models_learn_as_on_one_process() -> None:
    expected = steps(shard=False)
    for weights in run_processes(sharded, 2):
        for name, value in expected.items():
            torch.testing.assert_close(
                weights[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )


def slopes() -> list[Tensor]:
    """The gradient of the squared gradients of this process's samples."""
    slopes_of_slopes = []
    for recipe in ("clip", LABELLED, "zerovl", "unicl"):
        objective = vlmdsl.compile(recipe, compiled=False).double()
        batch = {name: own_slice(value).clone() for name, value in example_features(objective, batch=4).items()}
        batch["image" if "image" in batch else "image_mix"].requires_grad_()
        (leaf,) = (value for value in batch.values() if value.requires_grad)
        processes = dist.get_world_size() if dist.is_initialized() else 1
        loss = objective(**batch).loss / processes
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
        slopes_of_slopes.append(second)
    return slopes_of_slopes


def test_second_derivatives_go_through_other_processes() -> None:
    expected, shares = slopes(), run_processes(slopes, 2)
    for place, value in enumerate(expected):
        torch.testing.assert_close(torch.cat([share[place] for share in shares]), value, rtol=1e-9, atol=1e-12)
