"""The outputs of encoders, and per-sample operations on them."""

from __future__ import annotations

from vlmdsl.ir.encoders import Encoder
from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import NUMBER, fixed, need, one_of, positive_block, same, take
from vlmdsl.types import (
    JOINED,
    CodesType,
    DistributionType,
    DrawsType,
    EncodedType,
    FieldType,
    LogitsType,
    LossType,
    ScalarType,
    ScoreType,
    TableType,
    TokensType,
    Type,
    VecType,
    token_axis,
)

__all__ = [
    "DISTRIBUTION", "ENCODE", "ENTROPY", "ENTROPY_OF_MEAN", "GATE", "MIX", "NORMALIZE", "PATCH_CODES", "POOLED",
    "REDUCE_TOKENS", "TOKENS", "VOCABULARY", "context_of", "parallel_draw_of", "prefix_draw_of", "source_of",
    "transforms",
]  # fmt: skip


def source_of(node: Node) -> Node:
    """The field or view that something was encoded from, by way of its first inputs."""
    while not isinstance(node.type, FieldType):
        node = node.inputs[0]
    return node


def transforms(node: Node) -> bool:
    """Whether a node is the logits of a tower's text with a transform before the map to its vocabulary."""
    return node.operation == "vocabulary" and node.string("transform") != "none"


def encode(node: Node, types: tuple[Type, ...]) -> Type:
    """A field; for a text decoder also the tokens that it attends to, and the draws that split and hide the text."""
    encoder = node.attribute("encoder")
    assert isinstance(encoder, Encoder)
    if encoder.decoder is None:
        take(types, FieldType)
    else:
        context, draws = (TokensType,) * context_count(node), (DrawsType,) * _draw_count(node)
        take(types, FieldType, *context, *draws)
        need(0 <= node.number("parallel") <= 1, f"the share of parallel prediction is {node.number('parallel')}")
    kind = types[0].kind if isinstance(types[0], FieldType) and types[0].count is None else ""
    need(kind in encoder.takes, f"{encoder.tower} encodes {encoder.kind}, got {types[0]}")
    return EncodedType(kind)


def _draw_count(node: Node) -> int:
    """How many draws of samples an `encode` node of a text decoder takes, its last inputs."""
    return (node.attribute("prefix") == "drawn") + (node.number("parallel") > 0)


def context_count(node: Node) -> int:
    """1 if an `encode` node of a text decoder has a context, its second input, else 0."""
    return len(node.inputs) - 1 - _draw_count(node)


def context_of(node: Node) -> Node | None:
    """The tokens that the text of an `encode` node attends to; None if there are none."""
    return node.inputs[1] if len(node.inputs) > 1 and context_count(node) else None


def prefix_draw_of(node: Node) -> Node | None:
    """The draw that splits the text of an `encode` node into a prefix and the rest; None if none does."""
    return node.inputs[1 + context_count(node)] if node.attribute("prefix") == "drawn" else None


def parallel_draw_of(node: Node) -> Node | None:
    """The draw that says of which samples an `encode` node predicts all tokens at once; None without any."""
    return node.inputs[-1] if node.number("parallel") > 0 else None


def tokens(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    assert isinstance(types[0], EncodedType)
    _without_heads(node)
    return TokensType(tokens=token_axis(types[0].kind))


def _without_heads(node: Node) -> None:
    encoder = dict(node.inputs[0].attributes).get("encoder")
    need(not (isinstance(encoder, Encoder) and encoder.heads), "a head gives pooled features only")


def vocabulary(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    need(types[0] in (EncodedType("Text"), EncodedType(JOINED)), f"has logits for texts, got {types[0]}")
    _without_heads(node)
    one_of(node, "transform", "none", "gelu")
    return LogitsType()


def codes(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (EncodedType("Image"),), f"are those of an image, got {types}")
    _without_heads(node)
    return CodesType(tokens=token_axis("Image"))


def mixture(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    need(types[0] in (VecType(), FieldType("Image")), f"mixes images or features, got {types[0]}")
    take(types[1:], ScalarType)
    positive_block(node)
    return types[0]


def reduced_tokens(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType)
    one_of(node, "by", "max", "mean")
    return VecType()


ENCODE = define(
    Operation(
        "encode",
        encode,
        {"encoder": (Encoder,), "prefix": (str,), "parallel": NUMBER},
        {"prefix": "none", "parallel": 0.0},
        takes="field, view or joined; of a text decoder also Tokens that it attends to, and Draws",
        carries=(
            "`encoder: ir.Encoder` (tower, kind, frozen, teacher, heads, enters, decoder); of a text decoder `prefix`"
            " (`none`, `drawn`, `prompt`: the first of two texts), `parallel`, the share of samples whose tokens are all"
            " hidden and predicted at once"
        ),
        gives="Encoded; of a frozen tower or a teacher without gradient",
    )
)
POOLED = define(
    Operation(
        "pooled", fixed(VecType(), EncodedType), reads_encoder_output=True, enters=True, takes="encode", gives="Vec, Tokens"
    )
)
TOKENS = define(Operation("tokens", tokens, reads_encoder_output=True, enters=True, takes="encode", gives="Vec, Tokens"))
VOCABULARY = define(
    Operation(
        "vocabulary",
        vocabulary,
        {"transform": (str,)},
        {"transform": "none"},
        reads_encoder_output=True,
        takes="encode or apply of a Text",
        carries="of a tower the `transform` before the map: `none`, or `gelu`, a linear map, a GELU and a norm",
        gives="Logits [B, L, V] of each token, by a linear map of its state to the vocabulary of the text tower",
    )
)
PATCH_CODES = define(
    Operation(
        "codes",
        codes,
        reads_encoder_output=True,
        stops_gradient=True,
        takes="encode of an Image by a tokenizer",
        gives="Codes: the codebook entry of each patch",
    )
)
NORMALIZE = define(
    Operation(
        "normalize",
        same(VecType, TokensType, TableType),
        {"epsilon": NUMBER, "smallest": NUMBER, "wide": (bool,)},
        {"smallest": 1e-12, "wide": False},
        passes_features=True,
        per_sample=True,
        takes="Vec, Tokens or Table",
        carries="`epsilon`, `smallest` (only if not 1e-12), `wide` (in float32 at least, for a queue)",
        gives="the same, each vector divided by its length plus epsilon",
    )
)
MIX = define(
    Operation(
        "mix",
        mixture,
        {"block": (int,)},
        {"block": 0},
        passes_features=True,
        enters=True,
        takes="an Image and a Scalar made of draws and constants; or Vec and Scalar",
        carries="`block`, unless it is the whole batch",
        gives=(
            "the same: the Scalar's share of each sample plus the rest of its partner in the reversed global batch, "
            "or in its reversed block of consecutive samples. The model mixes images before they are encoded"
        ),
    )
)
GATE = define(
    Operation(
        "gate",
        fixed(VecType(), VecType, ScoreType),
        passes_features=True,
        per_sample=True,
        takes="Vec, Score",
        gives="Vec: the vector of each sample times its number",
    )
)
REDUCE_TOKENS = define(
    Operation(
        "reduce_tokens",
        reduced_tokens,
        {"by": (str,)},
        passes_features=True,
        per_sample=True,
        takes="Tokens",
        carries="`by`: max or mean",
        gives="Vec: of each sample the largest entry of each feature over its tokens, or their mean; 0 without tokens",
    )
)
DISTRIBUTION = define(
    Operation(
        "distribution",
        fixed(DistributionType(), VecType),
        {"temperature": NUMBER},
        per_sample=True,
        takes="Vec",
        carries="`temperature`",
        gives="Distribution: each sample's softmax over its own features",
    )
)
ENTROPY = define(
    Operation(
        "entropy",
        fixed(ScoreType(), DistributionType, DistributionType),
        compares=True,
        per_sample=True,
        takes="two Distributions p, q",
        gives="Score: H(p, q)",
    )
)
ENTROPY_OF_MEAN = define(
    Operation(
        "entropy_of_mean",
        fixed(LossType(), DistributionType),
        takes="Distribution",
        gives="Loss: the entropy of the mean distribution of the global batch",
    )
)
