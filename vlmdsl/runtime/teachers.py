"""Teachers: towers, with their heads, whose weights are the running mean of another's."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vlmdsl.ir import Encoder, Stream, Teacher
from vlmdsl.runtime.heads import Heads
from vlmdsl.runtime.named import NamedModules

__all__ = ["Teachers", "momentum_at"]


def momentum_at(teacher: Teacher, done: int, steps: int) -> float:
    """The momentum of the update that belongs to step `done` (0-based) of a run of `steps`."""
    if teacher.schedule == "constant":
        return teacher.momentum
    if teacher.schedule == "warm_up":  # OTTER (Wu et al., ICLR 2022), after TensorFlow's ExponentialMovingAverage
        return min(teacher.momentum, (2.0 + done) / (11.0 + done))
    share = min(done / steps, 1.0)
    return 1.0 - (1.0 - teacher.momentum) * (1.0 + math.cos(math.pi * share)) / 2.0


class Teachers(nn.Module):
    """A copy of a tower and its heads for every teacher that the streams ask for, and the count of steps for schedules.

    Only weights follow; buffers (batch statistics) are the teacher's own. Both are in the checkpoint.
    Raises ValueError where a schedule needs the number of `steps` and it is not given (0).
    """

    steps_done: Tensor

    def __init__(self, towers: Mapping[str, nn.Module], heads: Heads, streams: Iterable[Stream], steps: int) -> None:
        super().__init__()
        self._steps = steps
        self._names: dict[Encoder, str] = {}
        self.copies = NamedModules()
        self.heads = NamedModules()
        taught: dict[Encoder, list[Stream]] = {}
        for stream in streams:
            if stream.encoder.teacher:
                taught.setdefault(stream.encoder.bare, []).append(stream)
        for encoder, followers in taught.items():
            if steps < 1 and encoder.teacher and encoder.teacher.schedule == "cosine":
                raise ValueError(
                    f"the momentum of the teacher of {encoder.tower} follows the run: say how many `steps` it has"
                )
            name = self._names[encoder] = _unused(encoder.tower, self.copies)
            self.copies[name] = copy.deepcopy(towers[encoder.tower]).requires_grad_(False)
            self.heads[name] = heads.copied(followers)
        self.register_buffer("steps_done", torch.tensor(0))

    def tower(self, encoder: Encoder) -> nn.Module:
        """The module that encodes in the tower's place."""
        return self.copies[self._names[encoder.bare]]

    def heads_of(self, encoder: Encoder) -> nn.Module:
        """The heads in the place of the tower's."""
        return self.heads[self._names[encoder.bare]]

    def encoding(self) -> list[nn.Module]:
        """Every module that features go through."""
        heads = (part for group in self.heads.values() if isinstance(group, Heads) for part in group.parts.values())
        return [*self.copies.values(), *heads]

    @torch.no_grad()
    def follow(self, towers: nn.ModuleDict, heads: Heads, order: str) -> None:
        """Move the weights of those teachers whose turn it is: `before` the forward pass, or `after` the optimiser step."""
        for encoder, name in self._names.items():
            teacher = encoder.teacher
            if teacher is None or teacher.order != order:
                continue
            known = teacher.schedule != "constant" and not self.steps_done.is_meta  # there are no numbers on that device
            done = int(self.steps_done) if known else 0
            share = 1.0 - momentum_at(teacher, done, self._steps)
            _approach(self.copies[name], towers[encoder.tower], share)
            own = self.heads[name]
            assert isinstance(own, Heads)
            for part, module in own.parts.items():
                _approach(module, heads.parts[part], share)
        if order == "after":
            self.steps_done += 1


def _approach(own: nn.Module, followed: nn.Module, share: float) -> None:
    for weight, goal in zip(own.parameters(), followed.parameters(), strict=True):
        weight.lerp_(goal, share)


def _unused(name: str, taken: nn.ModuleDict) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
