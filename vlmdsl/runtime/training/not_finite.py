"""What is written when a loss or a gradient is not finite: everything that is needed to look at that step again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.collectives import gather_objects
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import LossNotFinite
from vlmdsl.runtime.values import Batch
from vlmdsl.source import Span

__all__ = ["culprit", "evidence", "not_finite", "tensor_facts"]

_MOST_NAMES = 50
"""Names of weights that are listed; how many there are is always said."""


def culprit(terms: Mapping[str, Tensor], loss: Tensor) -> str:
    """What is not finite, in words: the first such term, else the loss, else the gradient."""
    wrong = next((name for name, value in terms.items() if not bool(torch.isfinite(value).all())), None)
    if wrong is not None:
        return f"the term `{wrong}`"
    return "the loss" if not bool(torch.isfinite(loss)) else "the gradient"


def not_finite(output: Any, step: int, file: Path | None) -> DiagnosticError:
    """The error V0819 for the output of a step, with the file that holds its `evidence`, where one was written."""
    numbers = [*output.terms.items(), *output.metrics.items()]
    notes = tuple(f"{name} is {value.item():g}" for name, value in numbers)
    where = () if file is None else (f"`{file}` holds the samples, the ranges of all tensors and the settings of this step",)
    what = culprit(output.terms, output.loss)
    help = (*where, "`vlmdsl explain V0819`")
    return DiagnosticError((LossNotFinite.at(Span("training", 0, 0), what=what, step=step, notes=notes, help=help),))


def evidence(model: nn.Module, batch: Batch, output: Any, gradient_norm: Tensor, *, step: int, seed: int) -> dict[str, Any]:
    """The facts about a step whose loss or gradient is not finite, as JSON.

    Call it on every process, before the gradients are cleared: the samples of all of them are listed. The step is
    computed once more, without gradient, to find the first module whose output is not finite.
    """
    keys = gather_objects((list(batch.keys), batch.index.tolist()))
    weights = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return {
        "format": 1,
        "what": culprit(output.terms, output.loss),
        "step": step,
        "seed": seed,
        "flow": batch.flow,
        "terms": {name: _number(value.item()) for name, value in output.terms.items()},
        "metrics": {name: _number(value.item()) for name, value in output.metrics.items()},
        "gradient_norm": _number(gradient_norm.item()),
        "first_module": _first_module(model, batch),
        "samples": {
            "keys": [key for own, _ in keys for key in own],
            "indices": [index for _, own in keys for index in own],
        },
        "draws": {name: _number(value.item()) for name, value in batch.draws.items()},
        "batch": {name: _facts_of_value(value) for name, value in batch.values.items()},
        "weights": _of_weights(weights),
        "gradients": _of_weights((name, weight.grad) for name, weight in weights if weight.grad is not None),
    }


def tensor_facts(tensor: Tensor) -> dict[str, Any]:
    """Shape, type, and the range and mean of the finite numbers of a tensor; all processes call it for one that is sharded.

    >>> tensor_facts(torch.tensor([1.0, float("nan"), 3.0]))
    {'shape': [3], 'dtype': 'float32', 'not_finite': 1, 'least': 1.0, 'largest': 3.0, 'mean': 2.0}
    """
    gather = getattr(tensor, "full_tensor", None)  # a DTensor's, whose module other runs do not import
    numbers = (tensor if gather is None else gather()).detach()
    finite = numbers[torch.isfinite(numbers)].double()
    facts: dict[str, Any] = {
        "shape": list(numbers.shape),
        "dtype": str(numbers.dtype).removeprefix("torch."),
        "not_finite": numbers.numel() - finite.numel(),
    }
    if finite.numel():
        least, largest = finite.aminmax()
        facts |= {"least": least.item(), "largest": largest.item(), "mean": finite.mean().item()}
    return facts


def _facts_of_value(value: tuple[Tensor | None, ...]) -> dict[str, Any]:
    names = getattr(value, "_fields", range(len(value)))
    return {str(name): tensor_facts(part) for name, part in zip(names, value, strict=True) if part is not None}


def _of_weights(named: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
    """Which tensors are not finite, and the largest absolute number of those that are."""
    wrong: list[str] = []
    largest, where = 0.0, ""
    for name, tensor in named:
        facts = tensor_facts(tensor)
        if facts["not_finite"]:
            wrong.append(name)
        elif (extreme := max(abs(facts.get("least", 0.0)), abs(facts.get("largest", 0.0)))) >= largest:
            largest, where = extreme, name
    return {"not_finite": wrong[:_MOST_NAMES], "count": len(wrong), "largest": largest, "largest_in": where}


def _first_module(model: nn.Module, batch: Batch) -> str | None:
    """The first module whose output is not finite for finite inputs, by its name; None if all of them are finite."""
    first: list[str] = []

    def look(name: str, taken: Any, result: Any) -> None:
        if not first and not _all_finite(result) and _all_finite(taken):
            first.append(name)

    own = getattr(model, "models", {}).get(batch.flow, model)
    with ExitStack() as hooks, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name, module in own.named_modules():
            if name:
                hook = module.register_forward_hook(lambda _, taken, result, name=name: look(name, taken, result))
                hooks.callback(hook.remove)
        own(batch)
    return first[0] if first else None


def _all_finite(value: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, list | tuple):
        yield from (tensor for part in value for tensor in _tensors(part))


def _number(value: float) -> float | str:
    """A number as JSON has it; one that is not finite as text."""
    return value if math.isfinite(value) else str(value)
