"""Fields of a sample, and the views of them."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, Yields, define
from vlmdsl.ir.operations.rules import NUMBER, need, take
from vlmdsl.types import JOINED, FieldType, ScalarType, Type

__all__ = [
    "ALTERNATIVE", "AUGMENT", "BLEND", "CROP", "DROP", "EDA", "FIELD", "JOIN", "MASK", "PROMPTED", "RENDER", "REPLACE",
    "REWRITE",
    "SUMMARIZE", "SWAP", "WRITTEN", "masked_text",
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


def prompted(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (FieldType("Text"), FieldType("Text")), "puts a Text before a Text")
    return FieldType("Text")


def written(node: Node, types: tuple[Type, ...]) -> Type:
    text, image = FieldType("Text"), FieldType("Image")
    need(types in ((text, image), (text, image, text)), "is of a Text, an Image and maybe a prompt")
    return text


def mask(node: Node, types: tuple[Type, ...]) -> Type:
    shares = {name: node.number(name) for name in ("share", "hidden", "replaced")}
    need(all(0 <= share <= 1 for share in shares.values()), f"the shares are {shares}")
    return view("Text")(node, types)


FIELD = define(
    Operation(
        "field",
        field,
        {"name": (str,)},
        declares_type=True,
        enters=True,
        stops_gradient=True,
        carries="`name`",
        gives="Image, Text, Label, Flag, Number, Key",
    )
)
REWRITE = define(
    Operation(
        "rewrite",
        view("Text"),
        {"count": (int,), "minimum_words": (int,), "draw": (int,)},
        per_sample_view=True,
        reads_rewrites=True,
        takes="a Text",
        carries="`count` (M), `minimum_words`, `draw`",
        gives="Text",
    )
)
ALTERNATIVE = define(
    Operation(
        "alternative",
        view("Text"),
        {"view": (int,)},
        per_sample_view=True,
        reads_rewrites=True,
        takes="a Text",
        carries="`view` (0: the text itself, k: its k-th rewrite)",
        gives="Text",
    )
)
MASK = define(
    Operation(
        "mask",
        mask,
        {"share": NUMBER, "hidden": NUMBER, "replaced": NUMBER, "draw": (int,), "by": (str,), "arguments": (tuple,)},
        {"by": "", "arguments": ()},
        per_sample_view=True,
        view_word="masked",  # `NAME_mask` tells padding
        takes="a Text",
        carries="`share` of the tokens selected, of these `hidden` and `replaced`, `draw`; of a plug-in's mask `by` and "
        "`arguments`",
        gives="Text, the last of its views",
    )
)
EDA = define(
    Operation(
        "eda",
        view("Text"),
        {"operations": (tuple,), "words": (int,), "deletion": NUMBER, "draw": (int,)},
        per_sample_view=True,
        takes="a Text",
        carries="`operations` (drawn from), `words`, `deletion`, `draw`",
        gives="Text",
    )
)
CROP = define(
    Operation(
        "crop",
        view("Image"),
        {"smallest": NUMBER, "largest": NUMBER, "draw": (int,), "view": (int,), "side": NUMBER},
        {"view": None, "side": 1.0},
        per_sample_view=True,
        takes="an Image",
        carries=(
            "`smallest`, `largest` (shares of the area), `draw`; in a set `view`, and of small crops `side` "
            "(share of the tower's)"
        ),
        gives="Image",
    )
)
SUMMARIZE = define(
    Operation(
        "summarize",
        view("Text"),
        {"sentences": (int,), "by": (str,)},
        per_sample_view=True,
        in_evaluation=True,
        takes="a Text",
        carries="`sentences`, `by` (`position`, `centrality`)",
        gives="Text",
    )
)
RENDER = define(
    Operation(
        "render",
        view("Text", "Image"),
        {"row_height": (int,), "smallest": (int,)},
        per_sample_view=True,
        in_evaluation=True,
        takes="a Text",
        carries="`row_height`, `smallest` (pixels)",
        gives="Image",
    )
)
AUGMENT = define(
    Operation(
        "augment",
        view("Image"),
        {"view": (int,), "pipeline": (object,), "draw": (int,)},
        per_sample_view=True,
        takes="an Image",
        carries="`view` (index in its set), `pipeline`, `draw`",
        gives="Image",
    )
)
DROP = define(
    Operation(
        "drop",
        view("Image"),
        {"share": NUMBER, "draw": (int,), "by": (str,), "arguments": (tuple,)},
        {"by": "", "arguments": ()},
        per_sample_view=True,
        takes="an Image",
        carries="`share`, `draw`; of a plug-in's mask `by` and `arguments`",
        gives="Image: the tower encodes the remaining patches, whatever views follow",
    )
)
REPLACE = define(
    Operation(
        "replace",
        view("Image"),
        {"share": NUMBER, "draw": (int,), "by": (str,), "arguments": (tuple,)},
        {"by": "", "arguments": ()},
        per_sample_view=True,
        view_word="masked",
        takes="an Image",
        carries="`share`, `draw`; `by` and `arguments` of a rule other than `random`",
        gives="Image: a learned token replaces some patches in the tower, whatever views follow",
    )
)
SWAP = define(
    Operation(
        "swap",
        view("Text"),
        {"share": NUMBER, "draw": (int,)},
        per_sample_view=True,
        takes="a Text",
        carries="`share`, `draw`",
        gives="Text: with that probability the text of another sample of the data, never an equal one",
    )
)
WRITTEN = define(
    Operation(
        "written",
        written,
        {"by": (str,), "share": NUMBER, "beams": (int,), "draw": (int,)},
        per_sample_view=True,
        takes="a Text, an Image, and a prompt where the decoder has one",
        carries="`by` which decoder, `share`, `beams`, `draw`",
        gives="Text: with that probability what the decoder wrote of the image before the first step",
    )
)
JOIN = define(
    Operation(
        "join",
        join,
        pairs_fields=True,
        takes="an Image, a Text",
        gives="Joined: both in one sequence, for an encoder of both",
    )
)
PROMPTED = define(
    Operation(
        "prompted",
        prompted,
        pairs_fields=True,
        takes="a prompt and a Text",
        gives="Text: one sequence, the text after the prompt, for a text decoder",
    )
)
BLEND = define(
    Operation(
        "blend",
        blend,
        pairs_fields=True,
        takes="an Image, a Text and a Scalar made of draws and constants",
        gives="Joined: the image over the text, the Scalar its share; for an encoder of both",
    )
)


def masked_text(source: Node) -> Node | None:
    """The masked text that an encoder reads in `source`, by itself or joined with an image; None where it reads none."""
    parts = source.inputs if source.operation in (JOIN, PROMPTED) else (source,)
    return next((part for part in parts if part.operation is MASK), None)
