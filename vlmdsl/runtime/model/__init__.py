"""The model of a program: the configured towers and the modules on them, called in the order of the schedule."""

from vlmdsl.runtime.model.flows import FlowModels
from vlmdsl.runtime.model.model import VisionLanguageModel

__all__ = ["FlowModels", "VisionLanguageModel"]
