"""Runs leave no pictures of their curves, but those of tests that are about them."""

from undrawn import curves_are_not_drawn

__all__ = ["curves_are_not_drawn"]
