"""Modules on features: what fusion and heads make of what towers give, and whether an image and a text belong together."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import need, take
from vlmdsl.ir.uses import Use
from vlmdsl.types import ConditionType, EncodedType, LossType, TokensType, Type, VecType, token_axis

__all__ = ["APPLY", "MATCHED", "STATES", "use_of"]


def use_of(node: Node) -> Use:
    """The use of an `apply` node."""
    use = node.attribute("use")
    assert isinstance(use, Use)
    return use


def states(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    assert isinstance(types[0], EncodedType)
    return TokensType(tokens=token_axis(types[0].kind), features="W")


def apply(node: Node, types: tuple[Type, ...]) -> Type:
    """Fusion takes the states of a text and those of an image; a head takes vectors."""
    family = use_of(node).module.family
    need(family in ("fusion", "head"), f"a {family} is not applied to features")
    if family == "head":
        take(types, VecType)
        return VecType()
    take(types, TokensType, TokensType)
    axes = [kind.tokens for kind in types if isinstance(kind, TokensType)]
    need(axes == [token_axis("Text"), token_axis("Image")], f"fuses a text with an image, got {types[0]} and {types[1]}")
    return EncodedType("Text")


def matched(node: Node, types: tuple[Type, ...]) -> Type:
    """Vectors of two logits: those of the pairs, then those of others, each with the condition that they are others."""
    need(len(types) % 2 == 1, f"has {len(types)} inputs: pairs, then others with a condition each")
    take(types, VecType, *((VecType, ConditionType) * (len(types) // 2)))
    return LossType()


STATES = define(
    Operation(
        "states",
        states,
        reads_encoder_output=True,
        enters=True,
        takes="encode",
        gives="Tokens: the last states of the tower, which modules on it take",
    )
)
APPLY = define(
    Operation(
        "apply",
        apply,
        {"use": (Use,)},
        takes="states of a text, states of its image; or a Vec",
        carries="`use: ir.Use` (module, blocks, gradient, follows)",
        gives="Encoded, of a text given its image; of a head Vec. The schedule calls the module",
    )
)
MATCHED = define(
    Operation(
        "matched",
        matched,
        takes="Vec of two logits, then of others Vec and Condition each",
        gives="Loss: the mean cross-entropy of pairs, and of others for which the condition holds",
    )
)
