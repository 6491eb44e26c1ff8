"""Runs leave no pictures of their curves."""

from undrawn import curves_are_not_drawn

__all__ = ["curves_are_not_drawn"]
