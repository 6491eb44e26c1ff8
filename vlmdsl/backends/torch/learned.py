"""The learned parameters of an objective: exact initial values, bounds, and precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.numbers import free_attribute, keep_precision, start_tensor
from vlmdsl.ir import Node, Program, logarithms, parameters, reached

__all__ = ["LearnedNumbers"]

_COMPOSABLE = "__composable_api_state_key"
"""The prefix of the attribute that torch's composable parallelism looks for in a module."""


class LearnedNumbers(nn.Module):
    """A module whose parameters are numbers, 0-d, under their own names.

    They are float32 at least: `half()` and `bfloat16()` leave them as they are, since a temperature rounded to three digits
    is another one, and `double()` gives untrained ones their exact initial value in float64.

    `fully_shard` rejects 0-d parameters. In such a module they become [1], which can be sharded; checkpoints of either shape
    load into the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self._attributes: dict[str, str] = {}
        self._starts: dict[str, float] = {}
        self._bounds: dict[str, tuple[float | None, float | None]] = {}
        self._direct: set[str] = set()

    def register_numbers(self, program: Program) -> None:
        """Add the parameters of a program, under another name where the module already has theirs."""
        stored_as_logarithms = logarithms(program)
        trained = set(reached(term.node for term in program.terms))
        for node in parameters(program):
            self._register(node, trained=node in trained)
            if node not in stored_as_logarithms:
                self._direct.add(node.string("name"))

    def _register(self, node: Node, *, trained: bool) -> None:
        name = node.string("name")
        attribute = free_attribute(self, name)
        self._attributes[name] = attribute
        self._starts[name] = node.number("initial")
        lower, upper = node.attribute("lower"), node.attribute("upper")
        self._bounds[name] = (
            lower if isinstance(lower, int | float) else None,
            upper if isinstance(upper, int | float) else None,
        )
        with torch.inference_mode(False):
            self.register_parameter(attribute, nn.Parameter(start_tensor(self._starts[name]), requires_grad=trained))

    def share(self, other: LearnedNumbers) -> None:
        """Make the numbers that `other` calls as some are called here these very ones, and take over the rest."""
        for name, attribute in other._attributes.items():
            if name in self._attributes:
                number = self._number(name)
                number.requires_grad_(number.requires_grad or getattr(other, attribute).requires_grad)
                setattr(other, attribute, number)
            else:
                self._attributes[name] = attribute
                self._starts[name], self._bounds[name] = other._starts[name], other._bounds[name]
                self._direct |= other._direct & {name}
                self.register_parameter(attribute, getattr(other, attribute))

    def rate(self, attribute: str) -> float:
        """What the learning rate of the parameter of this name is multiplied by: its start, where it is learned directly and
        starts between -1 and 1 but not at 0, else 1.

        AdamW moves a number by about its learning rate in a step. That is a share of what a logarithm stands for, but of a
        temperature that starts at 0.07 and is learned itself the rate of a logarithm, 0.01, is a seventh: ALBEF's fell to a
        tenth in 20 steps.
        """
        name = next((name for name, own in self._attributes.items() if own == attribute), None)
        if name not in self._direct or not self._starts[name]:
            return 1.0
        return min(abs(self._starts[name]), 1.0)

    def reset_parameters(self) -> None:
        """Reset every number to its initial value, for modules that were created on `meta`."""
        with torch.no_grad():
            for name, start in self._starts.items():
                self._number(name).fill_(start)

    def after_step(self) -> None:
        """Clamp parameters to their bounds; call it after each optimiser step."""
        with torch.no_grad():
            for name, (lower, upper) in self._bounds.items():
                if lower is not None or upper is not None:
                    self._number(name).clamp_(lower, upper)

    def learned(self) -> dict[str, Tensor]:
        """The parameters by their names in the program, 0-d."""
        numbers = {name: self._number(name) for name in self._attributes}
        return {name: number.reshape(()) if number.dim() else number for name, number in numbers.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_COMPOSABLE):  # `fully_shard` asks whether it may manage this module, then for its parameters
            self._give_axes()
        return super().__getattr__(name)

    def _number(self, name: str) -> Tensor:
        number: Tensor = getattr(self, self._attributes[name])
        return number

    def _give_axes(self) -> None:
        for attribute in self.__dict__.get("_attributes", {}).values():
            number = getattr(self, attribute)
            if number.dim() == 0:
                setattr(self, attribute, nn.Parameter(number.detach().reshape(1), requires_grad=number.requires_grad))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LearnedNumbers:
        """As in any module, except for the precision of the numbers."""
        before = {name: self._number(name).detach() for name in self._attributes}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            number = self._number(name)
            kept = keep_precision(old, number.detach(), self._starts[name])
            if kept is not None:
                number.data = kept
                if number.grad is not None:
                    number.grad = number.grad.to(kept.dtype)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """As in any module; a number may be stored with or without an axis."""
        copied = dict(state_dict)
        for attribute in self._attributes.values():
            saved, own = copied.get(prefix + attribute), getattr(self, attribute)
            if isinstance(saved, Tensor) and saved.numel() == own.numel() == 1:
                copied[prefix + attribute] = saved.reshape(own.shape)
        super()._load_from_state_dict(copied, prefix, *arguments)
