"""The learning rate as a function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from vlmdsl.schema import ScheduleConfig

__all__ = ["learning_rate_factor"]


def learning_rate_factor(step: int, steps: int, schedule: ScheduleConfig) -> float:
    """The fraction of the peak learning rate for optimiser step `step` (0 is the first) of `steps`.

    A line from 1/warmup to 1 over the warm-up, then half a cosine that reaches `schedule.final` at the last step.

    >>> [round(learning_rate_factor(step, 6, ScheduleConfig(warmup_steps=2)), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    decay = steps - 1 - schedule.warmup_steps
    done = min(1.0, (step - schedule.warmup_steps) / decay) if decay > 0 else 0.0
    return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2
