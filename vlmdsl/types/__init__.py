"""Axes and types of the language."""

from vlmdsl.types.fields import FIELD_KINDS, JOINED, FieldKind, as_value, plain_kinds, register_field_kind, token_axis
from vlmdsl.types.grounding import AlignmentType, BoxAssignmentType, WordMapType
from vlmdsl.types.queues import InputsType, LabelsType, MemoryType, QueueType
from vlmdsl.types.types import (
    AssignmentType,
    CodesType,
    ConditionType,
    DistributionType,
    DrawsType,
    EncodedType,
    EncoderType,
    ErrorType,
    FieldType,
    FunctionType,
    IndexType,
    LogitsType,
    LossType,
    MaskType,
    PatchesType,
    PerSampleType,
    PicksType,
    PixelsType,
    ScalarType,
    ScoreType,
    SimilarityType,
    SimType,
    StringType,
    TableType,
    TargetType,
    TokensType,
    TupleType,
    Type,
    VectorType,
    VecType,
    ViewSetType,
    ViewType,
    column_count,
    holds_memory,
    memory_axis,
    picked_axis,
)

__all__ = [
    "FIELD_KINDS", "JOINED", "AlignmentType", "AssignmentType", "BoxAssignmentType", "CodesType", "ConditionType",
    "DistributionType", "DrawsType", "EncodedType", "EncoderType", "ErrorType", "FieldKind", "FieldType", "FunctionType",
    "IndexType", "InputsType", "LabelsType", "LogitsType", "LossType", "MaskType", "MemoryType", "PatchesType",
    "PerSampleType", "PicksType", "PixelsType", "QueueType", "ScalarType", "ScoreType", "SimType", "SimilarityType",
    "StringType", "TableType",
    "TargetType", "TokensType", "TupleType", "Type", "VecType", "VectorType", "ViewSetType", "ViewType", "WordMapType",
    "as_value", "column_count", "holds_memory", "memory_axis", "picked_axis", "plain_kinds", "register_field_kind",
    "token_axis",
]  # fmt: skip
