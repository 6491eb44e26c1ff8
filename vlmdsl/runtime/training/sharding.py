"""Training with weights, gradients and moments spread over all processes (FSDP2), one module at a time gathered."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW

from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.schema import OptimizerConfig

__all__ = ["Sharded", "clip_gradients", "gradient_norm"]

Model: TypeAlias = VisionLanguageModel | FlowModels


class Sharded:
    """A copy of a model whose modules are spread over the processes, with its optimiser.

    Each module that a step calls is a unit by itself: it is gathered while it runs, forward or backward, in a step of
    several backward passes (micro-batches) as in one, and whether or not the flow of a step uses it. What is in none of
    them, modules that share weights and the few learned numbers of the objective, every process keeps whole;
    `average_gradients` is for their gradients.

    `whole` and its optimiser are what is loaded, measured and saved, so that a checkpoint does not depend on the number of
    processes: it can be resumed on any other. After `gather` the first process has in them what the copy has learned; the
    others keep no weights in them.

    Args:
        whole: the model as it is to begin, the same on all processes.
        optimizer: its optimiser, with the moments of a checkpoint if it resumes from one.
    """

    def __init__(self, whole: Model, optimizer: AdamW, config: OptimizerConfig, world: World) -> None:
        self._whole, self._whole_optimizer, self._first = whole, optimizer, world.first
        self.model = copy.deepcopy(whole)
        for unit in self.model.parts.separate_units:
            fully_shard(unit, reshard_after_forward=True)
        self.optimizer = build_optimizer(self.model, config)
        moments = {name: optimizer.state.get(parameter, {}) for name, parameter in _parameters(whole, optimizer)}
        for name, parameter in _parameters(self.model, self.optimizer):
            if moments[name]:
                self.optimizer.state[parameter] = {kind: _like(parameter, own) for kind, own in moments[name].items()}
        if not world.first:
            optimizer.state.clear()
            whole.to("meta")

    @torch.no_grad()
    def gather(self) -> None:
        """Put weights, state and moments into the whole model and its optimiser, on the first process. All processes call
        it."""
        gathered = {name: _whole(value) for name, value in self.model.state_dict().items()}
        moments = {
            name: {kind: _whole(value) for kind, value in self.optimizer.state.get(parameter, {}).items()}
            for name, parameter in _parameters(self.model, self.optimizer)
        }
        if self._first:
            shapes = {name: value.shape for name, value in self._whole.state_dict().items()}
            self._whole.load_state_dict({name: _shaped(value, shapes[name]) for name, value in gathered.items()})
            for name, parameter in _parameters(self._whole, self._whole_optimizer):
                self._whole_optimizer.state[parameter] = {
                    kind: value if kind == "step" else _shaped(value, parameter.shape)
                    for kind, value in moments[name].items()
                }


def clip_gradients(weights: Sequence[Tensor], longest: float) -> Tensor:
    """As torch's `clip_grad_norm_`, of weights of which some are sharded; the norm is the same on all processes."""
    norm = gradient_norm(weights)
    for own in _kinds(weights):
        clip_grads_with_norm_(own, longest, norm)
    return norm


def gradient_norm(weights: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all gradients, of weights of which some are sharded, the same on all processes; 0 without any."""
    norms = [_whole(get_total_norm([one.grad for one in own if one.grad is not None])) for own in _kinds(weights)]
    return torch.stack(norms).norm() if norms else torch.tensor(0.0)


def _kinds(weights: Sequence[Tensor]) -> list[list[Tensor]]:
    """The weights with a gradient that are sharded, and those that are not: torch does not compute the two together."""
    learning = [weight for weight in weights if weight.grad is not None]
    kinds = [[weight for weight in learning if isinstance(weight, DTensor) is sharded] for sharded in (True, False)]
    return [own for own in kinds if own]


def _parameters(model: nn.Module, optimizer: AdamW) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that the optimiser has, by the names of the model."""
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return ((name, parameter) for name, parameter in model.named_parameters() if id(parameter) in trained)


def _like(parameter: Tensor, moment: Tensor) -> Tensor:
    """This process's part of a moment, as it has one of the parameter."""
    if not isinstance(parameter, DTensor) or moment.dim() == 0 != parameter.dim():
        return moment.clone()
    return distribute_tensor(moment.reshape(parameter.shape), parameter.device_mesh, parameter.placements)


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _shaped(value: Tensor, shape: torch.Size) -> Tensor:
    """As the whole model has it, but for a table without a length yet, which takes one."""
    return value.reshape(shape) if value.numel() == shape.numel() else value
