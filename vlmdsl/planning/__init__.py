"""From an optimised program to how a step runs: its schedule."""

from vlmdsl.planning.schedule import AFTER_EPOCH, applied_of, is_loaded, linear_of, logits_of, product_of, schedule_of

__all__ = ["AFTER_EPOCH", "applied_of", "is_loaded", "linear_of", "logits_of", "product_of", "schedule_of"]
