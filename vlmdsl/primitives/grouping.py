"""Primitives about groups of patches: their assignment, its mean over segments, and the divergence of two assignments."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.diagnostics.catalog.types import PooledWhereTokensAreCompared
from vlmdsl.ir import Node, encoder_of
from vlmdsl.ir.operations.encoding import ENCODE, MIX, source_of
from vlmdsl.ir.operations.grouping import ASSIGNMENT
from vlmdsl.ir.operations.modules import drops_of
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.patch_masks import without_masks
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import EncodedType

_EXAMPLE = (
    "recipe grouped(image: Image, text: Text, segments: Segments)\nlet groups = assignment(image)\n"
    "minimize {\n  pairs: contrast(image, text)\n  agree: assignment_divergence(groups, segment_mean(groups, segments))\n}"
)


def _assignment(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encode = builder.encoded(subjects["image"], "image")
    if not isinstance(encode, Node) or encode.operation is not ENCODE or encode.type != EncodedType("Image"):
        raise wrong_type(builder, "image", "assignment", encode, "an image, or a tower's output for it")
    if encoder_of(encode).heads:
        help = ("a head outputs pooled features only: use the tower itself, without `project` or `predict`",)
        place = builder.place("image")
        fault = PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity="assignment")
        raise Fault(fault, encode)
    return builder.add("assignment", encode)


register(
    Primitive(
        name="assignment",
        family="grouping",
        summary=(
            "To which group a tower that groups assigns each patch of an image: 1 for that group and 0 for all others; in "
            "training the group is drawn, and the gradient is that of the softmax it is drawn from (GroupViT, SegCLIP)."
        ),
        meaning=_assignment,
        subjects=(Subject("image", ("Encoded", "Image"), "an image, or a tower's output for it"),),
        formula=r"A_{ipg} \in \{0, 1\}",
        cost="none: the tower has made it",
        example=_EXAMPLE,
    )
)


def _segment_mean(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    groups, segments = subjects["assignment"], subjects["segments"]
    assert isinstance(segments, Node)
    if not isinstance(groups, Node) or groups.operation is not ASSIGNMENT:
        raise wrong_type(builder, "assignment", "segment_mean", groups, "the assignment of an image, `assignment(image)`")
    encode = groups.inputs[0]
    if drops_of(encode.inputs[0]):
        raise bad_value(
            builder, "assignment", "segment_mean", "some patches of its image are dropped, and segments are of all patches"
        )
    if encode.inputs[0].operation is MIX:
        raise bad_value(builder, "assignment", "segment_mean", "its image is mixed with another, and segments are of one")
    return builder.add("segment_mean", groups, builder.add("patch_segments", encode, segments))


register(
    Primitive(
        name="segment_mean",
        family="grouping",
        summary=(
            "The mean of an assignment over the patches of each segment, such as a superpixel, for all patches of it "
            "(SegCLIP). The segment of a patch is the truncated mean of the numbers of its pixels' segments, which follow "
            "the crops and mirrors of the image's view."
        ),
        meaning=_segment_mean,
        subjects=(
            Subject("assignment", ("Assignment",), "the assignment of an image"),
            Subject("segments", ("Segments",), "the segments of the same image"),
        ),
        formula=r"\bar{A}_{ip} = \frac{1}{|S_{ip}|} \sum_{q \in S_{ip}} A_{iq}",
        cost="P^2 G multiplications per image",
        example=_EXAMPLE,
    )
)


def _divergence(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    p, q = subjects["p"], subjects["q"]
    assert isinstance(p, Node)
    assert isinstance(q, Node)
    sources = [source_of(assignment) for assignment in (p, q)]
    if without_masks(sources[0]) is not without_masks(sources[1]):
        help = "name the view, `let x = augment(image)`, and use it in both"
        raise bad_value(builder, "q", "assignment_divergence", "it assigns the patches of another image", help)
    if drops_of(sources[0]) != drops_of(sources[1]):
        reason = "other patches of the image are dropped than for the first one"
        raise bad_value(builder, "q", "assignment_divergence", reason, "drop the same ones in both, or none")
    return builder.add("assignment_divergence", p, q)


register(
    Primitive(
        name="assignment_divergence",
        family="grouping",
        summary=(
            "How far two assignments are from each other: the symmetric Kullback-Leibler divergence of their softmaxes over "
            "groups, averaged over samples, patches and groups (SegCLIP). Gradients flow to both."
        ),
        meaning=_divergence,
        subjects=(
            Subject("p", ("Assignment",), "an assignment"),
            Subject("q", ("Assignment",), "another one of the same image, such as its mean over segments"),
        ),
        laws=("permutation", "non_negative"),
        formula=(
            r"\frac{1}{2 B P G} \sum_{i,p} \left[ \mathrm{KL}(\sigma(a_{ip}) \,\|\, \sigma(b_{ip})) + "
            r"\mathrm{KL}(\sigma(b_{ip}) \,\|\, \sigma(a_{ip})) \right]"
        ),
        cost="B P G numbers, read",
        example=_EXAMPLE,
    )
)
