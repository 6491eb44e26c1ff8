"""Fields of a sample, and the views of them."""

from __future__ import annotations

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import NUMBER, Signature, Yields, need, take
from vlmdsl.types import JOINED, FieldType, ScalarType, Type

__all__ = ["SIGNATURES"]


def field(node: Node, types: tuple[Type, ...]) -> Type | None:
    take(types)
    need(isinstance(node.type, FieldType), f"a field cannot be {node.type}")
    return None


def view(kind: str, gives: str | None = None) -> Yields:
    """A view of a field of this kind, which gives a field of the same kind or of another."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        take(types, FieldType)
        need(types[0] == FieldType(kind), f"is a view of {kind}, got {types[0]}")
        return FieldType(gives or kind)

    return yields


def join(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (FieldType("Image"), FieldType("Text")), "joins an Image and a Text")
    return FieldType(JOINED)


def blend(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (FieldType("Image"), FieldType("Text"), ScalarType()), "blends an Image and a Text by a Scalar")
    return FieldType(JOINED)


def mask(node: Node, types: tuple[Type, ...]) -> Type:
    shares = {name: node.number(name) for name in ("share", "hidden", "replaced")}
    need(all(0 <= share <= 1 for share in shares.values()), f"the shares are {shares}")
    return view("Text")(node, types) or types[0]


SIGNATURES: dict[str, Signature] = {
    "field": Signature({"name": (str,)}, field),
    "rewrite": Signature({"count": (int,), "minimum_words": (int,), "draw": (int,)}, view("Text")),
    "alternative": Signature({"view": (int,)}, view("Text")),
    "mask": Signature({"share": NUMBER, "hidden": NUMBER, "replaced": NUMBER, "draw": (int,)}, mask),
    "eda": Signature({"operations": (tuple,), "words": (int,), "deletion": NUMBER, "draw": (int,)}, view("Text")),
    "crop": Signature(
        {"smallest": NUMBER, "largest": NUMBER, "draw": (int,), "view": (int,), "side": NUMBER},
        view("Image"),
        optional=frozenset({"view", "side"}),
    ),
    "summarize": Signature({"sentences": (int,), "by": (str,)}, view("Text")),
    "render": Signature({"row_height": (int,), "smallest": (int,)}, view("Text", "Image")),
    "augment": Signature({"view": (int,), "pipeline": (object,), "draw": (int,)}, view("Image")),
    "drop": Signature({"share": NUMBER, "draw": (int,)}, view("Image")),
    "join": Signature({}, join),
    "blend": Signature({}, blend),
}
