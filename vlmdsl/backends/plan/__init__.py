"""The plan of a program: what runs and what it costs, from formulas, without torch."""

from vlmdsl.backends.plan.make import make_plan
from vlmdsl.backends.plan.report import CallRow, CollectiveRow, ComputeRow, Plan, RegionRow, ScheduleRow, SharedRow

__all__ = ["CallRow", "CollectiveRow", "ComputeRow", "Plan", "RegionRow", "ScheduleRow", "SharedRow", "make_plan"]
