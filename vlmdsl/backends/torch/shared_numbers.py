"""The learned numbers and the state of objectives that are trained together, shared by name."""

from __future__ import annotations

from collections.abc import Sequence

from vlmdsl.backends.torch.learned import LearnedNumbers
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.backends.torch.state import State

__all__ = ["SharedNumbers"]


class SharedNumbers(LearnedNumbers):
    """Holds the parameters and the state of `objectives`, which use them instead of their own.

    Parameters and buffers are named as in a single objective, so that the checkpoints of both have the same names.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.state = State(*(objective.program for objective in objectives))
        for objective in objectives:
            self.share(objective)
            objective.state = self.state
