"""Modules on features: fusion, heads and decoders, and the operations on their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import SAMPLES_CHOSEN, need, take, with_samples
from vlmdsl.ir.operations.views import DROP, REPLACE, SWAP
from vlmdsl.ir.uses import Module, Use
from vlmdsl.types import (
    CodesType,
    ConditionType,
    EncodedType,
    FieldType,
    LogitsType,
    LossType,
    MaskType,
    PatchesType,
    TokensType,
    Type,
    VecType,
    token_axis,
)

__all__ = [
    "APPLY", "CODES_AT", "CONTEXT", "DROPPED", "EMBEDDED", "MATCHED", "MATCHING", "OWN", "PIXELS",
    "RECONSTRUCT", "REPLACED", "STATES", "drops_of", "patches_of", "pooler_of", "replacements_of", "use_of",
]  # fmt: skip


def use_of(node: Node) -> Use:
    """The use of an `apply` node."""
    use = node.attribute("use")
    assert isinstance(use, Use)
    return use


def drops_of(source: Node) -> list[Node]:
    """The `drop` nodes among the views of an image, the last one first."""
    return _views_by(DROP, source)


def replacements_of(source: Node) -> list[Node]:
    """The `replace` nodes among the views of an image, the last one first."""
    return _views_by(REPLACE, source)


def patches_of(logits: Node) -> Node:
    """The encoded image whose patches a linear map predicts: by the states of a tower, those that a decoder gives of dropped
    patches, or those of the image in one sequence with a text."""
    below = logits.inputs[0]
    encoded = (below.inputs[0] if below.operation is APPLY else below).inputs[0]
    return encoded.inputs[1].inputs[0] if encoded.operation is APPLY else encoded


def _views_by(operation: Operation, source: Node) -> list[Node]:
    views = []
    while source.inputs and isinstance(source.type, FieldType):
        views += [source] if source.operation is operation else []
        source = source.inputs[0]
    return views


def states(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    assert isinstance(types[0], EncodedType)
    return TokensType(tokens=token_axis(types[0].kind), features="W")


def embedded(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (EncodedType("Text"),), f"are those of a text, got {types}")
    return states(node, types)


def apply(node: Node, types: tuple[Type, ...]) -> Type:
    """By the family of the module."""
    family = use_of(node).module.family
    need(family in _RULES, f"a {family} is not applied to features")
    return _RULES[family](node, types)


def _head(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, VecType)
    return VecType()


def _decoder(node: Node, types: tuple[Type, ...]) -> Type:
    """Takes the states of an image."""
    take(types, TokensType)
    _of_dropped(node.inputs[0])
    states = getattr(use_of(node).module.settings, "output", "") == "states"
    return TokensType(tokens=token_axis("Image"), features="W") if states else PatchesType()


def _fusion(node: Node, types: tuple[Type, ...]) -> Type:
    """Takes the states of a text and those of an image, or a text alone."""
    alone = getattr(use_of(node).module.settings, "attention", "") == "none"
    kinds = ("Text",) if alone else ("Text", "Image")
    take(types, *((TokensType,) * len(kinds)))
    axes = [kind.tokens for kind in types if isinstance(kind, TokensType)]
    need(axes == [token_axis(kind) for kind in kinds], f"takes {' and '.join(kinds)}, got {' and '.join(map(str, types))}")
    return EncodedType("Text")


def _token_head(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType)
    return types[0]


def _linear(node: Node, types: tuple[Type, ...]) -> Type:
    """Takes the states of an image."""
    take(types, TokensType)
    return LogitsType(tokens=token_axis("Image"))


def _pooler(node: Node, types: tuple[Type, ...]) -> Type:
    """Takes the states of an image, or the tokens of another pooler."""
    take(types, TokensType)
    axes = [kind.tokens for kind in types if isinstance(kind, TokensType)]
    need(axes == [token_axis("Image")], f"pools an image, got {types[0]}")
    return EncodedType("Image")


def pooler_of(node: Node) -> Module | None:
    """The pooler of an `apply` node; None for any other node."""
    module = use_of(node).module if node.operation is APPLY else None
    return module if module is not None and module.family == "pooler" else None


_RULES: Mapping[str, Callable[[Node, tuple[Type, ...]], Type]] = {
    "head": _head,
    "decoder": _decoder,
    "fusion": _fusion,
    "linear": _linear,
    "token_head": _token_head,
    "pooler": _pooler,
}
"""What modules of a family take, and what they give."""


def _of_dropped(node: Node) -> None:
    """What was encoded is an image of which some patches were dropped."""
    encode = node.inputs[0]
    source = encode.inputs[0] if encode.inputs else encode
    need(source.type == FieldType("Image") and bool(drops_of(source)), "is of an image without dropped patches")


def pixels(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType, PatchesType)
    need(types[0] == EncodedType("Image"), f"are of an Image, got {types[0]}")
    normalised = node.string("normalised")
    need(normalised in ("none", "patch"), f"are not normalised by {normalised}")
    return PatchesType()


def dropped(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    source = node.inputs[0].inputs[0]
    need(types[0] == EncodedType("Image") and bool(drops_of(source)), "is of an image without dropped patches")
    return MaskType(tokens="P")


def replaced(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    source = node.inputs[0].inputs[0]
    need(types[0] == EncodedType("Image") and bool(replacements_of(source)), "is of an image without replaced patches")
    return MaskType(tokens=token_axis("Image"))


def context(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    settings = use_of(node.inputs[0]).module.settings if node.inputs[0].operation is APPLY else None
    need(getattr(settings, "attention", "") == "merged", "is of a text and an image in one sequence")
    return TokensType(tokens=token_axis("Image"), features="W")


def own(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (FieldType("Text"),) and node.inputs[0].operation is SWAP, "is of a text that `swap` may have replaced")
    return ConditionType()


def matching(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, VecType, ConditionType)
    return LossType()


def codes_at(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, CodesType, MaskType)
    return types[0]


def reconstruct(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, PatchesType, PatchesType, MaskType)
    return LossType()


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
EMBEDDED = define(
    Operation(
        "embedded",
        embedded,
        reads_encoder_output=True,
        enters=True,
        takes="encode of a Text",
        gives="Tokens: what enters the first block of the tower, which a module that shares its blocks takes",
    )
)
APPLY = define(
    Operation(
        "apply",
        apply,
        {"use": (Use,)},
        takes=(
            "states of a text, and of its image unless the module is for texts alone; or states of an image, of a decoder "
            "without dropped patches; a Vec; or Tokens"
        ),
        carries="`use: ir.Use` (module, blocks, gradient, follows)",
        gives="Encoded of a text given its image or of a pooled image, Patches or Tokens of a decoder, Logits of a linear "
        "map of patches, Vec of a head, or Tokens of a head on tokens. The schedule calls the module",
    )
)
MATCHED = define(
    Operation(
        "matched",
        with_samples(matched),
        samples_after=1,
        takes=f"Vec of two logits for pairs, then Vec and Condition for others{SAMPLES_CHOSEN}, after the first",
        gives="Loss: the mean cross-entropy of pairs and of those others for which the condition holds",
    )
)
PIXELS = define(
    Operation(
        "pixels",
        pixels,
        {"normalised": (str,)},
        stops_gradient=True,
        takes="encode of an Image, Patches that are compared with it",
        carries="`normalised` (`none`, `patch`)",
        gives="Patches: the input pixels of the tower, in patches of that size",
    )
)
DROPPED = define(
    Operation(
        "dropped",
        dropped,
        stops_gradient=True,
        takes="encode of an Image with dropped patches",
        gives="Mask of patches: the dropped ones",
    )
)
REPLACED = define(
    Operation(
        "replaced",
        replaced,
        stops_gradient=True,
        takes="encode of an Image with replaced patches",
        gives="Mask of patches: the replaced ones",
    )
)
CODES_AT = define(
    Operation(
        "codes_at",
        codes_at,
        stops_gradient=True,
        takes="Codes, Mask",
        gives="Codes: those that the mask selects, negative elsewhere",
    )
)
CONTEXT = define(
    Operation(
        "context",
        context,
        reads_encoder_output=True,
        enters=True,
        takes="apply of a text and an image in one sequence",
        gives="Tokens: the states of the image in that sequence",
    )
)
OWN = define(
    Operation(
        "own",
        own,
        {"name": (str,)},
        stops_gradient=True,
        takes="a Text that `swap` may have replaced",
        carries="`name`",
        gives="Condition: whether it is the text of the sample; an input of the objective",
    )
)
MATCHING = define(
    Operation(
        "matching",
        with_samples(matching),
        samples_after=2,
        takes=f"Vec of two logits, Condition{SAMPLES_CHOSEN}",
        gives="Loss: the mean cross-entropy of the logits, the second of which stands for samples where the condition holds",
    )
)
RECONSTRUCT = define(
    Operation(
        "reconstruct",
        with_samples(reconstruct),
        counts="patch that its mask selects",
        samples_after=3,
        takes=f"predicted Patches, target Patches, Mask of patches{SAMPLES_CHOSEN}",
        gives="Loss: the mean squared error over the patches that the mask selects, of the global batch; none: 0",
    )
)
