"""Fields of a sample, and the views of them."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, Yields, define
from vlmdsl.ir.operations.rules import NUMBER, need, take
from vlmdsl.types import JOINED, FieldType, ScalarType, Type

__all__ = [
    "ALTERNATIVE", "AUGMENT", "BLEND", "CROP", "DROP", "EDA", "FIELD", "JOIN", "MASK", "RENDER", "REWRITE", "SUMMARIZE",
    "masked_text",
]  # fmt: skip


def field(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    need(isinstance(node.type, FieldType), f"a field cannot be {node.type}")
    return node.type


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
    return view("Text")(node, types)


FIELD = define(Operation("field", field, {"name": (str,)}, declares_type=True, enters=True, stops_gradient=True))
REWRITE = define(
    Operation(
        "rewrite",
        view("Text"),
        {"count": (int,), "minimum_words": (int,), "draw": (int,)},
        per_sample_view=True,
        reads_rewrites=True,
    )
)
ALTERNATIVE = define(Operation("alternative", view("Text"), {"view": (int,)}, per_sample_view=True, reads_rewrites=True))
MASK = define(
    Operation(
        "mask",
        mask,
        {"share": NUMBER, "hidden": NUMBER, "replaced": NUMBER, "draw": (int,), "by": (str,), "arguments": (tuple,)},
        {"by": "", "arguments": ()},
        per_sample_view=True,
        view_word="masked",  # `NAME_mask` tells padding
    )
)
EDA = define(
    Operation(
        "eda",
        view("Text"),
        {"operations": (tuple,), "words": (int,), "deletion": NUMBER, "draw": (int,)},
        per_sample_view=True,
    )
)
CROP = define(
    Operation(
        "crop",
        view("Image"),
        {"smallest": NUMBER, "largest": NUMBER, "draw": (int,), "view": (int,), "side": NUMBER},
        {"view": None, "side": 1.0},
        per_sample_view=True,
    )
)
SUMMARIZE = define(
    Operation("summarize", view("Text"), {"sentences": (int,), "by": (str,)}, per_sample_view=True, in_evaluation=True)
)
RENDER = define(
    Operation(
        "render", view("Text", "Image"), {"row_height": (int,), "smallest": (int,)}, per_sample_view=True, in_evaluation=True
    )
)
AUGMENT = define(
    Operation("augment", view("Image"), {"view": (int,), "pipeline": (object,), "draw": (int,)}, per_sample_view=True)
)
DROP = define(Operation("drop", view("Image"), {"share": NUMBER, "draw": (int,)}, per_sample_view=True))
JOIN = define(Operation("join", join, pairs_fields=True))
BLEND = define(Operation("blend", blend, pairs_fields=True))


def masked_text(source: Node) -> Node | None:
    """The masked text that an encoder reads in `source`, by itself or joined with an image; None where it reads none."""
    parts = source.inputs if source.operation is JOIN else (source,)
    return next((part for part in parts if part.operation is MASK), None)
