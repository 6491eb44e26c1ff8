"""From an optimised program to how a step runs: its schedule."""

from vlmdsl.planning.schedule import applied_of, is_loaded, schedule_of

__all__ = ["applied_of", "is_loaded", "schedule_of"]
