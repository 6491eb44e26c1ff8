"""Steps of an objective on held-out batches: with what it draws per sample, the same every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vlmdsl.backends.torch.step import Environment, Step
from vlmdsl.ir.operations.scalars import DRAW, RAMP, SCALAR
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import NOT_SELECTED, Batch, MaskedTokens, ReplacedPatches, TextBatch, Value, port, to

__all__ = ["drawn_numbers", "evaluated_steps", "unmasked", "whole_images"]

Values = dict[str, Value]
"""What a batch holds, by name."""
_NUMBERS = (DRAW, RAMP, SCALAR)


def evaluated_steps(
    model: VisionLanguageModel, batches: Iterable[Batch], unmask: Callable[[Values], Values]
) -> Iterator[tuple[Batch, Environment]]:
    """Each batch with the values of a step on it, after `unmask`; what is drawn per sample is the same every time."""
    device = next(model.encoders.parameters()).device
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        values = unmask({name: to(value, device) for name, value in batch.values.items()})
        draws = {name: draw.to(device) for name, draw in drawn_numbers(model, len(batch.index), generator).items()}
        environment = model.begin(replace(batch, values=values, draws=draws, index=batch.index.to(device)))
        Step(model.objective, model)(environment)
        yield batch, environment


def whole_images(values: Values) -> Values:
    """The values of a batch with no patch of an image replaced."""
    return {
        name: ReplacedPatches(torch.zeros_like(value.replaced)) if isinstance(value, ReplacedPatches) else value
        for name, value in values.items()
    }


def unmasked(values: Values) -> Values:
    """The values of a batch with no patch replaced, and texts as they were before tokens were masked."""
    whole = whole_images(values)
    for name, text in values.items():
        masked = values.get(port(name, "masked"))
        if isinstance(text, TextBatch) and isinstance(masked, MaskedTokens):
            hidden = masked.targets != NOT_SELECTED
            whole[name] = text._replace(ids=torch.where(hidden, masked.targets, text.ids))
    return whole


def drawn_numbers(model: VisionLanguageModel, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Evenly drawn numbers per sample, and 0 for numbers of the whole step, on which no output of a module depends."""
    nodes = {node.string("name"): node for node in model.objective.schedule.load.values if node.operation in _NUMBERS}
    draws: dict[str, Tensor] = {}
    for name in sorted(nodes, key=[*model.objective.inputs, *nodes].index):
        if "count" in dict(nodes[name].attributes):
            count = int(nodes[name].number("count"))
            draws[name] = torch.rand((samples, count) if count > 1 else samples, generator=generator)
        else:
            draws[name] = torch.tensor(0.0)
    return draws
