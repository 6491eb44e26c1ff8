"""What every operation takes, carries and yields: the table that `vlmdsl.ir.verify` holds graphs to.

`docs/architecture.md` section 3 is the same table in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir import rules
from vlmdsl.ir.contrast import Contrast
from vlmdsl.ir.encoders import Encoder
from vlmdsl.types import (
    DistributionType,
    EncodedType,
    LossType,
    MemoryType,
    PicksType,
    ScoreType,
    SimType,
    TableType,
    TargetType,
    TokensType,
    VecType,
)

__all__ = ["SIGNATURES", "Signature"]


@dataclass(frozen=True, slots=True)
class Signature:
    """What one operation carries and yields: `attributes` by name with their Python types, and the rule of its type.

    Attributes that are `optional` are there only where they differ from their default.
    """

    attributes: dict[str, tuple[type, ...]]
    yields: rules.Yields
    optional: frozenset[str] = frozenset()


_NUMBER = (int, float)
_BOUND = (int, float, type(None))

SIGNATURES: dict[str, Signature] = {
    "field": Signature({"name": (str,)}, rules.field),
    "rewrite": Signature({"count": (int,), "minimum_words": (int,), "draw": (int,)}, rules.view("Text")),
    "alternative": Signature({"view": (int,)}, rules.view("Text")),
    "mask": Signature({"share": _NUMBER, "hidden": _NUMBER, "replaced": _NUMBER, "draw": (int,)}, rules.mask),
    "eda": Signature({"operations": (tuple,), "words": (int,), "deletion": _NUMBER, "draw": (int,)}, rules.view("Text")),
    "crop": Signature(
        {"smallest": _NUMBER, "largest": _NUMBER, "draw": (int,), "view": (int,), "side": _NUMBER},
        rules.view("Image"),
        optional=frozenset({"view", "side"}),
    ),
    "summarize": Signature({"sentences": (int,), "by": (str,)}, rules.view("Text")),
    "render": Signature({"row_height": (int,), "smallest": (int,)}, rules.view("Text", "Image")),
    "augment": Signature({"view": (int,), "pipeline": (object,), "draw": (int,)}, rules.view("Image")),
    "drop": Signature({"share": _NUMBER, "draw": (int,)}, rules.view("Image")),
    "join": Signature({}, rules.join),
    "encode": Signature({"encoder": (Encoder,)}, rules.encode),
    "pooled": Signature({}, rules.fixed(VecType(), EncodedType)),
    "tokens": Signature({}, rules.tokens),
    "vocabulary": Signature({}, rules.vocabulary),
    "mlm": Signature({}, rules.mlm),
    "stop": Signature({}, rules.same(VecType, TokensType, DistributionType, *rules.NUMERIC)),
    "distribution": Signature({"temperature": _NUMBER}, rules.fixed(DistributionType(), VecType)),
    "entropy": Signature({}, rules.fixed(ScoreType(), DistributionType, DistributionType)),
    "entropy_of_mean": Signature({}, rules.fixed(LossType(), DistributionType)),
    "normalize": Signature(
        {"epsilon": _NUMBER, "smallest": _NUMBER}, rules.same(VecType, TokensType), optional=frozenset({"smallest"})
    ),
    "similarity": Signature({"by": (str,), "arguments": (tuple,)}, rules.similarity),
    "score": Signature({"by": (str,), "arguments": (tuple,)}, rules.score),
    "constant": Signature({"value": _NUMBER}, rules.constant),
    "parameter": Signature({"name": (str,), "initial": _NUMBER, "lower": _BOUND, "upper": _BOUND}, rules.parameter),
    "draw": Signature({"name": (str,), "distribution": (str,), "arguments": (tuple,)}, rules.draw),
    "mix": Signature({}, rules.mixture),
    "state": Signature({"name": (str,), "initial": _NUMBER}, rules.state),
    "memory": Signature({"name": (str,), "size": (int,), "start": (str,)}, rules.memory),
    "enqueue": Signature({}, rules.enqueue),
    "nearest": Signature({}, rules.fixed(VecType(), SimType, MemoryType, VecType)),
    "reference": Signature({"encoder": (Encoder,), "field": (str,), "kind": (str,)}, rules.reference),
    "retrieve": Signature({"k": (int,)}, rules.retrieve),
    "take": Signature({}, rules.fixed(TokensType(tokens="K"), TableType, PicksType)),
    "attend": Signature({}, rules.attend),
    "log_sum_exp": Signature({}, rules.log_sum_exp),
    "running_mean": Signature({"momentum": _NUMBER}, rules.running_mean),
    **{name: Signature({}, rules.elementwise(1)) for name in rules.UNARY},
    **{name: Signature({}, rules.elementwise(2)) for name in rules.BINARY},
    **{name: Signature({}, rules.compare) for name in rules.COMPARISONS},
    "where": Signature({}, rules.where),
    "clamp": Signature({"lower": _BOUND, "upper": _BOUND, "gradient": (str,)}, rules.clamp),
    "not": Signature({}, rules.complement),
    "transpose": Signature({}, rules.transpose),
    "reuse": Signature({"matrix": (str,)}, rules.same(SimType)),
    "paired": Signature({}, rules.fixed(TargetType())),
    "same": Signature({"missing": (int,)}, rules.labels),
    "smooth": Signature({"epsilon": _NUMBER, "over": (str,)}, rules.smooth),
    "flipped": Signature({}, rules.fixed(TargetType())),
    "softmax": Signature({}, rules.of_affinity),
    "transport": Signature({"epsilon": _NUMBER, "iterations": (int,)}, rules.of_affinity),
    "target_entropy": Signature({"along": (str,)}, rules.asked),
    "exclude_pairs": Signature({}, rules.same(SimType)),
    "unite": Signature({}, rules.unite),
    "exclude": Signature({}, rules.exclude),
    "cross_entropy": Signature({"along": (str,), "denominator": (str,)}, rules.cross_entropy),
    "sigmoid_loss": Signature({}, rules.fixed(ScoreType(), SimType, TargetType)),
    "mean": Signature({}, rules.mean),
    "samples": Signature({}, rules.samples),
    "contrast": Signature({"contrast": (Contrast,)}, rules.contrast),
}
"""The table of operations: one row each."""
