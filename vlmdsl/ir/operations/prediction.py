"""Which tokens are predicted, and criteria that compare their logits with their ids."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.encoding import VOCABULARY, source_of
from vlmdsl.ir.operations.rules import NUMBER, SAMPLES_CHOSEN, need, of_samples, take, with_samples
from vlmdsl.ir.operations.views import masked_text
from vlmdsl.types import JOINED, CodesType, EncodedType, LogitsType, LossType, MaskType, Type

__all__ = ["DISTILL", "TOKEN_IDS", "TOKEN_LOSS", "predicted_by", "predicts_selected"]


def predicted_by(logits: Node) -> Node:
    """What logits are an output of: an encoded text, or a linear map, which is applied to patches."""
    return logits.inputs[0] if logits.operation is VOCABULARY else logits


def predicts_selected(node: Node) -> bool:
    """Whether a node reads the logits only of tokens that a mask selected, whichever samples these are of.

    Selected tokens are packed over the whole batch: one that weighs samples, or takes their means, reads all tokens; so does
    one whose teacher read the text without the mask, of which the teacher's tokens are not packed.
    """
    ids = [parent for parent in node.inputs if parent.operation is TOKEN_IDS]
    encoded = [parent.inputs[0] for parent in node.inputs if parent.operation is VOCABULARY]
    if len({masked_text(source_of(text)) for text in encoded}) > 1:
        return False
    _, where, weight = of_samples(node)
    alike = where is weight is None and dict(node.attributes).get("reduction", "token") == "token"
    return bool(ids) and alike and all(parent.string("which") == "selected" for parent in ids)


def token_ids(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    need(types[0] in (EncodedType("Text"), EncodedType(JOINED)), f"are those of a text, got {types[0]}")
    which = node.string("which")
    need(which in ("selected", "all", "next"), f"are selected, all or next, not {which}")
    need(which != "selected" or masked_text(source_of(node)) is not None, "nothing in this text is masked")
    return CodesType()


def token_loss(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, LogitsType, CodesType)
    return LossType()


def distill(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, LogitsType, LogitsType, CodesType if isinstance(types[-1], CodesType) else MaskType)
    temperatures = [node.number(name) for name in ("temperature", "teacher_temperature")]
    need(min(temperatures) > 0, f"divides logits by {temperatures[0]}, and the teacher's by {temperatures[1]}")
    return LossType()


TOKEN_IDS = define(
    Operation(
        "token_ids",
        token_ids,
        {"which": (str,)},
        stops_gradient=True,
        takes="encode or apply of a Text",
        carries="`which` tokens: those that a mask `selected`, `all`, or of each the `next` one, without a prefix",
        gives="Codes: the ids of the tokens as they were before they were masked, negative for other tokens and padding",
    )
)
TOKEN_LOSS = define(
    Operation(
        "token_loss",
        with_samples(token_loss),
        {"smoothing": NUMBER, "over": (str,), "reduction": (str,)},
        {"smoothing": 0.0, "over": "all", "reduction": "token"},
        counts="token to predict",
        samples_after=2,
        takes=f"Logits, Codes{SAMPLES_CHOSEN}",
        carries="`smoothing` of the targets, `over` which entries (`all`, `others`); `reduction` (`token`, `sample`, `sum`)",
        gives="Loss: the mean cross-entropy of the tokens of the global batch that have a code; none: 0",
    )
)
DISTILL = define(
    Operation(
        "distill",
        with_samples(distill),
        {"temperature": NUMBER, "teacher_temperature": NUMBER},
        {"temperature": 1.0, "teacher_temperature": 1.0},
        counts="token to predict",
        samples_after=3,
        takes=f"Logits, Logits of a teacher; Codes, or of patches a Mask{SAMPLES_CHOSEN}",
        carries="`temperature` and `teacher_temperature`, which the logits are divided by",
        gives=(
            "Loss: the mean cross-entropy with the teacher's distribution of the tokens of the global batch that have a "
            "code, or that the mask selects; none: 0"
        ),
    )
)
