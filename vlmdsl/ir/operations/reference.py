"""A table of reference samples, and what is found in it."""

from __future__ import annotations

from vlmdsl.ir.encoders import Encoder
from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import Signature, fixed, need, take
from vlmdsl.types import FieldType, PicksType, TableType, TokensType, Type, VecType

__all__ = ["SIGNATURES"]


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


SIGNATURES: dict[str, Signature] = {
    "reference": Signature({"encoder": (Encoder,), "field": (str,), "kind": (str,)}, reference),
    "retrieve": Signature({"k": (int,)}, retrieve),
    "take": Signature({}, fixed(TokensType(tokens="K"), TableType, PicksType)),
    "attend": Signature({}, attend),
}
