"""The torch back end: readable source for a planned program, and the module that runs it."""

from vlmdsl.backends.torch.emit import emit
from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput

__all__ = ["Objective", "ObjectiveOutput", "emit"]
