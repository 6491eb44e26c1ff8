"""Training with weights, gradients and moments spread over all processes (FSDP2), one module at a time gathered."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import AdamW

from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.schema import OptimizerConfig

__all__ = ["Sharded"]


class Sharded:
    """A copy of a model whose parameters are spread over the processes, with its optimiser.

    `whole` and its optimiser are what is loaded, measured and saved, so that a checkpoint does not depend on the number of
    processes: it can be resumed on any other. After `gather` the first process has in them what the copy has learned; the
    others keep no weights in them.

    Args:
        whole: the model as it is to begin, the same on all processes.
        optimizer: its optimiser, with the moments of a checkpoint if it resumes from one.
    """

    def __init__(self, whole: VisionLanguageModel, optimizer: AdamW, config: OptimizerConfig, world: World) -> None:
        self._whole, self._whole_optimizer, self._first = whole, optimizer, world.first
        self.model = copy.deepcopy(whole)
        for unit in self.model.units:
            fully_shard(unit)
        fully_shard(self.model)
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
    """A learned number has one axis where it is sharded, and none otherwise. A table without a length yet takes one."""
    return value.reshape(shape) if value.numel() == shape.numel() else value
