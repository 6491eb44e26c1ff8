"""Axes and types of the language."""

from vlmdsl.types.fields import FIELD_KINDS, JOINED, FieldKind, as_value, plain_kinds, register_field_kind, token_axis
from vlmdsl.types.types import (
    ConditionType,
    DistributionType,
    DrawsType,
    EncodedType,
    EncoderType,
    ErrorType,
    FieldType,
    FunctionType,
    LabelsType,
    LossType,
    MaskType,
    MemoryType,
    PicksType,
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
    VecType,
    ViewSetType,
    ViewType,
    VocabularyType,
    column_count,
    holds_memory,
    memory_axis,
    picked_axis,
)

__all__ = [
    "FIELD_KINDS", "JOINED", "ConditionType", "DistributionType", "DrawsType", "EncodedType", "EncoderType", "ErrorType",
    "FieldKind", "FieldType", "FunctionType", "LabelsType", "LossType", "MaskType", "MemoryType", "PicksType", "ScalarType",
    "ScoreType", "SimType", "SimilarityType", "StringType", "TableType", "TargetType", "TokensType", "TupleType", "Type",
    "VecType", "ViewSetType", "ViewType", "VocabularyType", "as_value", "column_count", "holds_memory", "memory_axis",
    "picked_axis", "plain_kinds", "register_field_kind", "token_axis",
]  # fmt: skip
