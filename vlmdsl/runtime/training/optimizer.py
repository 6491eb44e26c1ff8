"""AdamW over the model's parameters, split by what takes weight decay and by whose learning rate applies."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.optim import AdamW

from vlmdsl.backends.torch.learned import LearnedNumbers
from vlmdsl.runtime.training.adaptation import rates
from vlmdsl.schema import OptimizerConfig

__all__ = ["build_optimizer", "decays", "set_learning_rate"]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW over every parameter of `model` that takes a gradient.

    `model.objective` (temperatures, biases) has its own learning rate, of which a number that is learned itself and starts
    below 1 has a share (`LearnedNumbers.rate`), and no weight decay; elsewhere matrices and kernels
    decay, while norms, biases, embeddings and single vectors (a class token) do not. Towers, and blocks of towers, may have
    rates of their own.
    """
    factors = dict(rates(model, config.layer_decay, config.tower_rates))
    grouped: dict[tuple[bool, float, float, bool], list[tuple[str, nn.Parameter]]] = {
        (False, config.learning_rate, config.weight_decay, False): [],
        (False, config.learning_rate, 0.0, False): [],
        (True, config.objective_learning_rate or config.learning_rate, 0.0, False): [],
    }
    for name, parameter, owner in _owned_parameters(model):
        objective = name.startswith("objective.")
        rate = config.objective_learning_rate or config.learning_rate if objective else config.learning_rate
        if isinstance(owner, LearnedNumbers):
            rate *= owner.rate(name.rpartition(".")[2])
        decay = 0.0 if objective or not decays(owner, parameter) else config.weight_decay
        sharded = hasattr(parameter, "full_tensor")  # which AdamW does not compute together with others
        grouped.setdefault((objective, rate * factors.get(name, 1.0), decay, sharded), []).append((name, parameter))
    groups = [
        {"params": parameters, "peak": rate, "lr": rate, "weight_decay": decay}
        for (_, rate, decay, _), parameters in grouped.items()
        if parameters
    ]
    return AdamW(groups, betas=config.betas, eps=config.epsilon)


def decays(owner: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to `parameter` of the module `owner`: to matrices and kernels, but not to embeddings."""
    matrix = sum(length > 1 for length in parameter.shape) >= 2
    return matrix and not isinstance(owner, nn.Embedding)


def set_learning_rate(optimizer: AdamW, factor: float) -> None:
    """Every group's learning rate becomes `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _owned_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Each trainable parameter once (a tied one under its first name), with the module that holds it."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}" if prefix else name, parameter, module
