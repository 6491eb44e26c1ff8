"""The part of the elaborator that calls and signatures need: it calls them, so they see only this protocol."""

from __future__ import annotations

from typing import Protocol

from vlmdsl.frontend.scope import RecipeFunction, Scope
from vlmdsl.frontend.session import Session
from vlmdsl.primitives.values import Value
from vlmdsl.syntax.tree import Expression

__all__ = ["Evaluates"]


class Evaluates(Protocol):
    """Evaluates expressions in scopes, within one session."""

    session: Session

    def evaluate(self, expression: Expression, scope: Scope) -> Value:
        """The value of an expression; an error in it is reported and becomes the error value."""

    def recipe_loss(self, recipe: RecipeFunction, arguments: dict[str, Value]) -> Value:
        """The sum of the terms of a used recipe."""
