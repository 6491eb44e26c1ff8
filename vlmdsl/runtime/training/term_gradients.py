"""The gradient norm of each term of the loss: which of them the weights follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from vlmdsl.backends.torch.collectives import average_gradients

__all__ = ["term_gradient_norms"]


def term_gradient_norms(
    model: Any,
    forward: Callable[[], Any],
    backward: Callable[[Tensor], object] | None = None,
    *,
    scale: float = 1.0,
    norm_of: Callable[[Sequence[Tensor]], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The L2 norm over all weights of the gradient of each term of a step, by the term's name; the same on all processes.

    Takes one forward and one backward pass for each term: the terms of a step have one compiled graph, which allows a
    single backward pass. Call it before the step, when the weights have no gradient. Nothing that the step depends on is
    changed: not the state of the objective, nor teachers or statistics of norms. One term gives nothing, since its gradient
    is that of the loss.

    Args:
        model: a `VisionLanguageModel`, not wrapped.
        forward: the forward pass of the step, each time with the same draws: `model(batch)`.
        backward: how a step in micro-batches (`CachedStep.backward`), or of sharded weights, passes a term's gradient back;
            None: as for any loss.
        scale: what a term is multiplied by for its backward pass (`LossScale`).
        norm_of: the norm of the gradients of weights, where some of them are sharded.
    """
    names = [term.name for term in model.objective.program.terms]
    if len(names) < 2:
        return {}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    norms: dict[str, Tensor] = {}
    with _unchanged(model):
        for name in names:
            term = forward().terms[name] * scale
            if backward is None:
                _put(weights, term)
                average_gradients(weights)
            else:
                backward(term)
            norms[name] = (norm_of or _norm)(weights) / scale
            for weight in weights:
                weight.grad = None
    return norms


def _norm(weights: Sequence[Tensor]) -> Tensor:
    return get_total_norm([weight.grad for weight in weights if weight.grad is not None])


def _put(weights: list[nn.Parameter], term: Tensor) -> None:
    """Give every weight the gradient of a term, 0 where the term does not depend on it.

    Not `backward`: that would start the exchange of a model that is wrapped for several processes.
    """
    if not term.requires_grad:
        gradients: tuple[Tensor | None, ...] = (None,) * len(weights)
    else:
        gradients = torch.autograd.grad(term, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = torch.zeros_like(weight) if gradient is None else gradient


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Passes in training mode inside leave no trace: an objective in evaluation mode updates no state, a model in evaluation
    mode moves no teacher, and the buffers of modules, such as statistics of norms, are put back."""
    objective: nn.Module = model.objective
    of_objective = {id(buffer) for buffer in objective.buffers()}
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if id(buffer) not in of_objective
    ]
    modes = model.training, objective.training
    model.training = False  # its own mode alone: towers keep theirs, with dropout and statistics of the batch
    objective.eval()
    try:
        yield
    finally:
        model.training = modes[0]
        objective.train(modes[1])
        with torch.no_grad():
            for module, name, buffer, value in kept:
                setattr(module, name, buffer.copy_(value))
