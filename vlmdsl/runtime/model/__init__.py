"""The model of a program: the towers that are configured, and the modules on them, called in the order of the schedule."""

from vlmdsl.runtime.model.model import VisionLanguageModel

__all__ = ["VisionLanguageModel"]
