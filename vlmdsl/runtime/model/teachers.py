"""Teachers: modules, with their heads, whose weights are the running mean of another's."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from vlmdsl.ir import Module, Ramp, Teacher, Use, ramp_at, vocabulary_use
from vlmdsl.runtime.model.family import Families
from vlmdsl.runtime.model.heads import Heads
from vlmdsl.runtime.model.named import NamedModules

__all__ = ["Teachers", "momentum_at"]

_Followed: TypeAlias = tuple[Module, Teacher]
"""The module at the bottom, and how its teacher follows it: one copy of its weights."""


def momentum_at(teacher: Teacher, done: int, steps: int) -> float:
    """The momentum of the update that belongs to step `done` (0-based) of a run of `steps`."""
    if isinstance(teacher.momentum, Ramp):
        return ramp_at(teacher.momentum, done, steps, per_epoch=0)
    if teacher.schedule == "constant":
        return teacher.momentum
    if teacher.schedule == "warm_up":  # OTTER (Wu et al., ICLR 2022), after TensorFlow's ExponentialMovingAverage
        return min(teacher.momentum, (2.0 + done) / (11.0 + done))
    share = min(done / steps, 1.0)
    return 1.0 - (1.0 - teacher.momentum) * (1.0 + math.cos(math.pi * share)) / 2.0


class Teachers(nn.Module):
    """A copy of a module, and of the heads, the vocabulary and the linear maps of patches on it, for every teacher that
    `uses` ask for, and the count of steps for schedules.

    Only weights follow; buffers (batch statistics) are separate. Both are in the checkpoint.
    Raises ValueError where a schedule needs the number of `steps` and it is not given (0).
    """

    steps_done: Tensor

    def __init__(self, families: Families, uses: Iterable[Use], steps: int) -> None:
        super().__init__()
        self._steps = steps
        self._names: dict[_Followed, str] = {}
        self.copies = NamedModules()
        self.heads = NamedModules()
        self.vocabularies = NamedModules()
        self.linear_heads = NamedModules()
        self._linear: dict[str, Module] = {}
        followed: dict[_Followed, list[Module]] = {}
        for use in uses:
            if use.follows is not None:
                on_it = followed.setdefault((use.module.base, use.follows), [])
                on_it += [use.module] * (use.module.on is not None)
        heads = _heads(families)
        for (base, teacher), on_it in followed.items():
            if steps < 1 and (teacher.schedule == "cosine" or _follows(teacher, "share")):
                raise ValueError(
                    f"the momentum of the teacher of {base.name} is a schedule: say how many `steps` the run has"
                )
            name = self._names[base, teacher] = _unused(base.name, self.copies)
            self.copies[name] = copy.deepcopy(families[base.family].part(base)).requires_grad_(False)
            self.heads[name] = heads.copied(module for module in on_it if module.family == "head")
            for module in dict.fromkeys(on_it):
                if module.family == "vocabulary" and base.family != "tower":  # that of a tower is copied with it
                    self.vocabularies[name] = copy.deepcopy(families["vocabulary"].part(module)).requires_grad_(False)
                if module.family == "linear":
                    own = _linear_name(name, module)
                    self.linear_heads[own] = copy.deepcopy(families["linear"].part(module)).requires_grad_(False)
                    self._linear[own] = module
        self.register_buffer("steps_done", torch.tensor(0))

    def part(self, use: Use) -> nn.Module:
        """The module to call for a use: of the module at the bottom, or of a head or a vocabulary on it."""
        assert use.follows is not None, "the use is of a teacher"
        name = self._names[use.module.base, use.follows]
        if use.module.on is None:
            return self.copies[name]
        if use.module.family == "vocabulary":
            return self.vocabularies[name]
        if use.module.family == "linear":
            return self.linear_heads[_linear_name(name, use.module)]
        heads = self.heads[name]
        assert isinstance(heads, Heads)
        return heads.part(use.module)

    def encoding(self) -> list[nn.Module]:
        """All modules that encode features."""
        heads = (part for group in self.heads.values() if isinstance(group, Heads) for part in group.parts.values())
        return [*self.copies.values(), *heads, *self.vocabularies.values(), *self.linear_heads.values()]

    def begin_again(self, families: Families) -> None:
        """Make each teacher a copy of what it follows, as before the first step."""
        for _, own, followed in self.pairs(families):
            own.load_state_dict(followed.state_dict())
        self.steps_done.zero_()

    @torch.no_grad()
    def follow(self, families: Families, order: str) -> None:
        """Update the teachers with this order: `before` the forward pass, or `after` the optimiser step."""
        for teacher, own, followed in self.pairs(families):
            if teacher.order == order:
                moves = teacher.schedule != "constant" and not self.steps_done.is_meta  # meta tensors have no data
                done = int(self.steps_done) if moves else 0
                share = 1.0 - momentum_at(teacher, done, self._steps)
                for weight, goal in zip(own.parameters(), followed.parameters(), strict=True):
                    weight.lerp_(goal, share)
        if order == "after":
            self.steps_done += 1

    def pairs(self, families: Families) -> Iterator[tuple[Teacher, nn.Module, nn.Module]]:
        """Each teacher's networks, with what they follow."""
        parts = _heads(families).parts
        for (base, teacher), name in self._names.items():
            yield teacher, self.copies[name], families[base.family].part(base)
            if name in self.vocabularies:
                yield teacher, self.vocabularies[name], families["vocabulary"].part(vocabulary_use(Use(base)).module)
            for linear, module in self._linear.items():
                if linear == _linear_name(name, module):
                    yield teacher, self.linear_heads[linear], families["linear"].part(module)
            own = self.heads[name]
            assert isinstance(own, Heads)
            yield from ((teacher, module, parts[part]) for part, module in own.parts.items())


def _linear_name(teacher: str, module: Module) -> str:
    """What the linear map of a teacher is called."""
    return f"{teacher}_{module.name}"


def _heads(families: Families) -> Heads:
    heads = families["head"]
    assert isinstance(heads, Heads)
    return heads


def _follows(teacher: Teacher, unit: str) -> bool:
    """Whether the momentum is a schedule over, or after, a part of the run in these units."""
    ramp = teacher.momentum
    return isinstance(ramp, Ramp) and any(each.unit == unit and each.amount > 0 for each in (ramp.over, ramp.after))


def _unused(name: str, taken: nn.ModuleDict) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
