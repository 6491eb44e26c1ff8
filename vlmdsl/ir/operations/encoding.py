"""What encoders give, and what is made of it sample by sample."""

from __future__ import annotations

from vlmdsl.ir.encoders import Encoder
from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import NUMBER, Signature, fixed, need, positive_block, same, take
from vlmdsl.types import (
    TOKEN_AXIS,
    DistributionType,
    EncodedType,
    FieldType,
    LossType,
    ScalarType,
    ScoreType,
    TokensType,
    Type,
    VecType,
    VocabularyType,
)

__all__ = ["SIGNATURES"]


def encode(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, FieldType)
    encoder = node.attribute("encoder")
    assert isinstance(encoder, Encoder)
    kind = types[0].kind if isinstance(types[0], FieldType) and types[0].count is None else ""
    need(kind in encoder.takes, f"{encoder.tower} encodes {encoder.kind}, got {types[0]}")
    return EncodedType(kind)


def tokens(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    assert isinstance(types[0], EncodedType)
    _without_heads(node)
    return TokensType(tokens=TOKEN_AXIS[types[0].kind])


def _without_heads(node: Node) -> None:
    encoder = dict(node.inputs[0].attributes).get("encoder")
    need(not (isinstance(encoder, Encoder) and encoder.heads), "a head gives pooled features only")


def vocabulary(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    need(types[0] == EncodedType("Text"), f"has words for texts, got {types[0]}")
    _without_heads(node)
    return VocabularyType()


def mlm(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, VocabularyType)
    need(node.inputs[0].inputs[0].inputs[0].operation == "mask", "nothing in this text is masked")
    return LossType()


def mixture(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    need(types[0] in (VecType(), FieldType("Image")), f"mixes images or features, got {types[0]}")
    take(types[1:], ScalarType)
    positive_block(node)
    return types[0]


SIGNATURES: dict[str, Signature] = {
    "encode": Signature({"encoder": (Encoder,)}, encode),
    "pooled": Signature({}, fixed(VecType(), EncodedType)),
    "tokens": Signature({}, tokens),
    "vocabulary": Signature({}, vocabulary),
    "mlm": Signature({}, mlm),
    "normalize": Signature(
        {"epsilon": NUMBER, "smallest": NUMBER, "wide": (bool,)},
        same(VecType, TokensType),
        optional=frozenset({"smallest", "wide"}),
    ),
    "mix": Signature({"block": (int,)}, mixture, optional=frozenset({"block"})),
    "gate": Signature({}, fixed(VecType(), VecType, ScoreType)),
    "distribution": Signature({"temperature": NUMBER}, fixed(DistributionType(), VecType)),
    "entropy": Signature({}, fixed(ScoreType(), DistributionType, DistributionType)),
    "entropy_of_mean": Signature({}, fixed(LossType(), DistributionType)),
}
