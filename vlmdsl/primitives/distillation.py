"""Distillation of predictions: logits of tokens or patches beside a teacher's distribution over the same entries."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.ir import Node, masked_text, parts_of
from vlmdsl.ir.operations.encoding import source_of
from vlmdsl.ir.operations.modules import APPLY, patches_of, use_of
from vlmdsl.ir.operations.scalars import STOP
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.patch_masks import check_all_patches, mask_of_patches, without_masks
from vlmdsl.primitives.prediction import AT, logits_of_tokens, which_tokens, without_decoder
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES, chosen_samples
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, Value
from vlmdsl.types import LogitsType


class DistillParameters(Parameters):
    """Arguments of `distill`."""

    temperature: float = Field(default=1.0, gt=0.0, description="what the logits are divided by")
    teacher_temperature: float = Field(default=1.0, gt=0.0, description="what those of the teacher are divided by")


def _distill(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    arguments = parameters.model_dump(exclude_defaults=True)
    value = subjects["logits"]
    whole = value.inputs[0] if isinstance(value, Node) and value.operation is STOP else value
    if isinstance(whole, Node) and whole.operation is APPLY and isinstance(whole.type, LogitsType):
        return _distill_patches(builder, whole, whole is not value, subjects, arguments)
    own, stopped = logits_of_tokens(builder, subjects["logits"], "logits", "distill")
    teacher, _ = logits_of_tokens(builder, subjects["teacher"], "teacher", "distill")
    texts = [parts_of(source_of(logits.inputs[0]))[-1] for logits in (own, teacher)]
    masked = masked_text(texts[0])
    if texts[1] is not texts[0] and (masked is None or texts[1] is not masked.inputs[0]):
        help = ("name the text, `let masked = mask(text, m)`, and use it in both, or the text itself for the teacher",)
        raise bad_value(builder, "teacher", "distill", "these are not logits of the same text", *help)
    for argument, logits in (("logits", own), ("teacher", teacher)):
        without_decoder(builder, logits.inputs[0], argument, "distill", subjects[argument])
    which = which_tokens(builder, own.inputs[0], {"logits": texts[0], "at": subjects["at"]}, "distill")
    chosen = chosen_samples(builder, subjects, "distill")
    loss = builder.add("distill", own, teacher, builder.add("token_ids", own.inputs[0], which=which), *chosen, **arguments)
    return builder.add("stop", loss) if stopped else loss


def _distill_patches(
    builder: Builder, own: Node, stopped: bool, subjects: Mapping[str, Value], arguments: Mapping[str, object]
) -> Node:
    """The same for patches that were dropped or replaced; the teacher saw the image, with them or without."""
    value, at = subjects["teacher"], subjects["at"]
    teacher = value.inputs[0] if isinstance(value, Node) and value.operation is STOP else value
    if not isinstance(teacher, Node) or teacher.operation is not APPLY or not isinstance(teacher.type, LogitsType):
        raise wrong_type(builder, "teacher", "distill", value, "logits of patches, `linear(teacher(image), size=...)`")
    for argument, logits in (("logits", own), ("teacher", teacher)):
        check_all_patches(builder, logits, argument, "distill")
    sizes = [getattr(use_of(logits).module.settings, "size", 0) for logits in (own, teacher)]
    if sizes[0] != sizes[1]:
        reason = f"there are logits of {sizes[0]} entries, and the teacher's are of {sizes[1]}"
        raise bad_value(builder, "teacher", "distill", reason)
    sources = [patches_of(logits).inputs[0] for logits in (own, teacher)]
    if without_masks(sources[0]) is not without_masks(sources[1]):
        help = ("name the view, `let x = augment(image)`, and use it in both",)
        raise bad_value(builder, "teacher", "distill", "these are not logits of the same image", *help)
    if not isinstance(at, MaskValue):  # left out
        help = ("name the mask, `let hidden = random(75%)`, and use it in both: `drop(image, hidden)`, `at=hidden`",)
        raise bad_value(builder, "at", "distill", "of patches, those are compared that a mask dropped or replaced", *help)
    masked = mask_of_patches(builder, patches_of(own), at, "at", "distill")
    loss = builder.add("distill", own, teacher, masked, *chosen_samples(builder, subjects, "distill"), **arguments)
    return builder.add("stop", loss) if stopped else loss


register(
    Primitive(
        name="distill",
        family="prediction",
        summary=(
            "The cross-entropy between the logits of tokens and a teacher's distribution, averaged over the tokens of the "
            "global batch that a mask selected, or over all tokens; 0 if there are none. Of patches, those count that were "
            "dropped or replaced. The teacher gets no gradient."
        ),
        meaning=_distill,
        subjects=(
            Subject("logits", ("Logits",), "the logits of each token"),
            Subject("teacher", ("Logits",), "a teacher's logits of the same tokens, masked or not, or of the same patches"),
            AT,
            *SAMPLES,
        ),
        parameters=DistillParameters,
        laws=("permutation", "non_negative"),
        formula=(
            r"-\frac{1}{|M|} \sum_{(i,k) \in M} \sum_v "
            r"\mathrm{softmax}(\bar{z}_{ik} / \bar{\tau})_v \log \mathrm{softmax}(z_{ik} / \tau)_v"
        ),
        cost="one pass over 2 N V logits for N tokens",
        example=(
            "encoder elder = ema(language, momentum=0.995)\nlet m = random(15%)\nlet masked = mask(text, m)\n"
            "minimize distill(linear(masked), linear(elder(masked)), at=m)"
        ),
    )
)
