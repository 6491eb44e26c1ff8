"""The loss of the global batch does not depend on how many processes share it: values and all gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import vlmdsl
from unit.backends.torch.programs import clip, labelled, tokenwise
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.ir import Program
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 8
PROGRAMS: dict[str, Callable[[], Program]] = {"clip": clip, "labelled": labelled, "tokenwise": tokenwise}


def global_batch(name: str) -> dict[str, Tensor]:
    """Duplicate labels lie across processes, and the masks are unequal: the second process of four has no query at all."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator, dtype=torch.float64)

    if name == "tokenwise":
        lengths = torch.tensor([5, 1, 3, 0, 2, 5, 4, 1])
        return {
            "image_tokens": normal(3, 4),
            "text_tokens": normal(5, 4),
            "text_mask": torch.arange(5)[None] < lengths[:, None],
        }
    features = {"image": normal(4), "text": normal(4)}
    if name == "clip":
        return features
    return features | {
        "weight": normal().exp(),
        "label": torch.tensor([1, 0, 1, -1, 0, -1, 2, 1]),
        "asks": torch.tensor([True, True, False, False, True, False, True, True]),
        "kept": torch.tensor([True, False, True, True, True, True, False, False]),
    }


def share(batch: dict[str, Tensor], rank: int, processes: int) -> dict[str, Tensor]:
    size = SAMPLES // processes
    return {name: value[rank * size : (rank + 1) * size] for name, value in batch.items()}


def value_and_gradients(name: str, compiled: bool = False, lowering: str = "dense") -> dict[str, Tensor]:
    """This process's part of everything; gradients are divided by the number of processes, as DDP's mean would."""
    distributed = torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if distributed else 1
    rank = torch.distributed.get_rank() if distributed else 0
    features = share(global_batch(name), rank, processes)
    features = {key: value.requires_grad_() if value.is_floating_point() else value for key, value in features.items()}
    objective = Objective(PROGRAMS[name](), compiled=compiled, lowering=lowering).double()
    out = objective(**features)
    out.loss.backward()
    results = {"loss": out.loss.detach(), **{f"metric {key}": value for key, value in out.metrics.items()}}
    results |= {f"term {key}": value.detach() for key, value in out.terms.items()}
    results |= {f"gradient {key}": value.grad / processes for key, value in features.items() if value.requires_grad}
    return results | {f"parameter {key}": value.grad / processes for key, value in objective.named_parameters()}


def of_all_programs(lowering: str = "dense") -> dict[str, Tensor]:
    return {
        f"{key} of {name}": value for name in PROGRAMS for key, value in value_and_gradients(name, lowering=lowering).items()
    }


def assert_equal_to_one_process(results: list[dict[str, Tensor]], expected: dict[str, Tensor]) -> None:
    for key, whole in expected.items():
        parts = [part[key] for part in results]
        if key.startswith("gradient"):
            together = [torch.cat(parts)]
        elif key.startswith("parameter"):
            together = [torch.stack(parts).sum(dim=0)]
        else:
            together = parts
        for value in together:
            torch.testing.assert_close(value, whole, rtol=1e-10, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(("processes", "lowering"), [(2, "dense"), (4, "dense"), (2, "chunked")])
def test_processes_share_one_batch(processes: int, lowering: str) -> None:
    """In blocks too, which one process of the dense form is held to."""
    expected = of_all_programs()
    assert_equal_to_one_process(run_processes(of_all_programs, processes, lowering), expected)


def test_compiled_processes_share_one_batch() -> None:
    expected = value_and_gradients("labelled")
    results = run_processes(value_and_gradients, 2, "labelled", True, timeout=400)
    assert_equal_to_one_process(results, expected)


SHARED = """vlo 1
recipe shared(image: Image, drawing: Image, text: Text)
minimize {
  pairs: contrast(image, text, temperature=0.5)
  drawings: contrast(drawing, text, temperature=0.5)
}
"""
"""Texts are the columns of both regions."""


class Exchanges(TorchDispatchMode):
    """Counts the exchanges between processes by their kind."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function.namespace == "_c10d_functional":
            self.counts[function.__name__.partition(".")[0]] += 1
        return function(*arguments, **(options or {}))


def exchanges_of_features(lowering: str) -> tuple[int, int]:
    """How often a step gathers features, and how often their gradients go back."""
    objective = vlmdsl.compile(SHARED, compiled=False, lowering=lowering)
    features = {name: torch.randn(4, 3, requires_grad=True) for name in objective.inputs}
    with Exchanges() as exchanges:
        objective(**features).loss.backward()
    return exchanges.counts["all_gather_into_tensor"], exchanges.counts["reduce_scatter_tensor"]


@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_features_that_several_regions_read_are_gathered_once_as_the_plan_says(lowering: str) -> None:
    regions = vlmdsl.plan(SHARED, batch=8, world=2, lowering=lowering).regions
    kinds = Counter(collective.kind for region in regions for collective in region.collectives)
    assert (kinds["all-gather"], kinds["reduce-scatter"]) == (1, 1)
    assert run_processes(exchanges_of_features, 2, lowering) == [(1, 1), (1, 1)]


class Towers(nn.Module):
    """Two linear towers and the objective, as a model that DDP wraps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(4, 3), nn.Linear(4, 3)
        self.objective = Objective(clip())

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        loss: Tensor = self.objective(image=self.image(image), text=self.text(text)).loss
        return loss


def parameter_gradients() -> dict[str, Tensor]:
    model: nn.Module = Towers().double()
    distributed = torch.distributed.is_initialized()
    rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    wrapped = nn.parallel.DistributedDataParallel(model) if distributed else model
    wrapped(**share(global_batch("clip"), rank, processes)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_under_ddp_every_process_holds_the_gradient_of_the_global_loss() -> None:
    expected = parameter_gradients()
    for gradients in run_processes(parameter_gradients, 2):
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-10, atol=1e-12)


def failing() -> None:
    raise ValueError("on purpose")


def test_a_failing_process_is_reported_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="ValueError: on purpose"):
        run_processes(failing, 2)
