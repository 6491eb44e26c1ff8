"""What the weights of a run, their gradients and the optimiser's moments take, by module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vlmdsl.runtime.model import FlowModels, VisionLanguageModel

__all__ = ["ModuleWeights", "module_weights"]

_MOMENTS = 2
"""Of each trained weight AdamW keeps two."""
_ADAPTER = "lora_"
"""What peft's names of its own weights have in them."""


class ModuleWeights(NamedTuple):
    """The weights of a module, how many of them are trained, how many of these are adapters (LoRA), and the bytes on each
    process: of all weights, of the gradients of those that are trained, and of their moments."""

    name: str
    weights: int
    trained: int
    adapters: int
    size: int
    gradients: int
    moments: int


def module_weights(model: VisionLanguageModel | FlowModels, *, shards: int = 1) -> list[ModuleWeights]:
    """A row for each tower and each other kind of module of a model.

    What is frozen, and a teacher, has no gradient and no moments; a tied weight counts once, where it is named first. With
    `shards` processes that share the weights each has a part of every module, but the whole of those that share weights and
    of the learned numbers of the objective (`Sharded`).
    """
    rows: dict[str, ModuleWeights] = {}
    spread = {id(parameter) for unit in model.parts.separate_units for parameter in unit.parameters()}
    for name, parameter in model.named_parameters():
        owner = _owner(name)
        own, of = rows.get(owner, ModuleWeights(owner, 0, 0, 0, 0, 0, 0)), shards if id(parameter) in spread else 1
        count, learns = parameter.numel(), parameter.requires_grad
        size = -(-count // of) * parameter.element_size()
        rows[owner] = ModuleWeights(
            owner,
            own.weights + count,
            own.trained + learns * count,
            own.adapters + (learns and _ADAPTER in name) * count,
            own.size + size,
            own.gradients + learns * size,
            own.moments + learns * _MOMENTS * size,
        )
    return [*_in_order(rows)]


def _owner(name: str) -> str:
    """`vision` for a weight of a tower, else the kind of its module: `heads`, `fusions`, `objective`."""
    first, second, *_ = f"{name}.".split(".")
    return second if first == "encoders" else first


def _in_order(rows: dict[str, ModuleWeights]) -> Iterator[ModuleWeights]:
    """The learned numbers last."""
    yield from (row for name, row in rows.items() if name != "objective")
    yield from (row for name, row in rows.items() if name == "objective")
