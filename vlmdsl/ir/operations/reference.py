"""A table of reference samples, and retrieval from it."""

from __future__ import annotations

from vlmdsl.ir.encoders import Encoder
from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import fixed, need, take
from vlmdsl.types import FieldType, PicksType, TableType, TokensType, Type, VecType

__all__ = ["ATTEND", "REFERENCE", "RETRIEVE", "TAKE"]


def retrieve(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, VecType, TableType, FieldType)
    need(types[2] == FieldType("Key"), f"leaves out a Key, got {types[2]}")
    need(node.number("k") >= 1, f"k is {node.attribute('k')!r}")
    return PicksType()


def reference(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    encoder = node.attribute("encoder")
    need(isinstance(encoder, Encoder) and encoder.frozen, "the encoder of a reference set learns")
    return TableType()


def attend(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, VecType, *((TokensType,) * max(len(types) - 1, 2)))
    return VecType()


REFERENCE = define(
    Operation(
        "reference",
        reference,
        {"encoder": (Encoder,), "field": (str,), "kind": (str,)},
        stops_gradient=True,
        carries="`encoder` (frozen), `field`, `kind`",
        gives="Table: the encoder's features of the field of each reference sample",
    )
)
RETRIEVE = define(
    Operation(
        "retrieve",
        retrieve,
        {"k": (int,)},
        stops_gradient=True,
        takes="Vec, Table, a Key",
        carries="`k`",
        gives=(
            "Picks: the samples with the largest cosine, best first, the earlier of equals, never the one with the same key"
        ),
    )
)
TAKE = define(
    Operation(
        "take",
        fixed(TokensType(tokens="K"), TableType, PicksType),
        stops_gradient=True,
        takes="Table, Picks",
        gives="Tokens: the rows of the table for the picks; masked where there are fewer",
    )
)
ATTEND = define(
    Operation(
        "attend",
        attend,
        compares=True,
        per_sample=True,
        takes="Vec, keys, values... (Tokens)",
        gives="Vec: x + the sum over the values of their means, weighted by softmax(x . keys / sqrt(D))",
    )
)
