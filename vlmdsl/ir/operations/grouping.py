"""Groups of patches: the assignment by a tower that groups, and what is compared with it."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import need, take
from vlmdsl.types import AssignmentType, CodesType, EncodedType, FieldType, LossType, Type

__all__ = ["ASSIGNMENT", "ASSIGNMENT_DIVERGENCE", "PATCH_SEGMENTS", "SEGMENT_MEAN"]


def assignment(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType)
    need(types[0] == EncodedType("Image"), f"is of an Image, got {types[0]}")
    return AssignmentType()


def patch_segments(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType, FieldType)
    need(types == (EncodedType("Image"), FieldType("Segments")), f"are of an Image and its Segments, got {types}")
    return CodesType(tokens="P")


def segment_mean(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, AssignmentType, CodesType)
    return AssignmentType()


def assignment_divergence(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, AssignmentType, AssignmentType)
    return LossType()


ASSIGNMENT = define(
    Operation(
        "assignment",
        assignment,
        reads_encoder_output=True,
        enters=True,
        takes="encode of an Image",
        gives="Assignment: 1 for the group that the tower assigns a patch to, else 0; the gradient is that of a softmax",
    )
)
PATCH_SEGMENTS = define(
    Operation(
        "patch_segments",
        patch_segments,
        stops_gradient=True,
        takes="encode of an Image, a Segments field",
        gives="Codes of patches: the truncated mean of the segments of their pixels, as the view of the image shows them",
    )
)
SEGMENT_MEAN = define(
    Operation(
        "segment_mean",
        segment_mean,
        per_sample=True,
        takes="Assignment, Codes of patches",
        gives="Assignment: for each patch the mean over the patches of its segment",
    )
)
ASSIGNMENT_DIVERGENCE = define(
    Operation(
        "assignment_divergence",
        assignment_divergence,
        takes="two Assignments",
        gives=(
            "Loss: the mean of both Kullback-Leibler divergences of their softmaxes over groups, "
            "over the samples of the global batch, patches and groups"
        ),
    )
)
