"""Axes and types of the language."""

from vlmdsl.types.types import (
    FIELD_KINDS,
    JOINED,
    TOKEN_AXIS,
    ConditionType,
    DistributionType,
    EncodedType,
    EncoderType,
    ErrorType,
    FieldType,
    FunctionType,
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
)

__all__ = [
    "FIELD_KINDS", "JOINED", "TOKEN_AXIS", "ConditionType", "DistributionType", "EncodedType", "EncoderType",
    "ErrorType", "FieldType", "FunctionType", "LossType", "MaskType", "MemoryType", "PicksType", "ScalarType",
    "ScoreType", "SimilarityType", "SimType", "StringType", "TableType", "TargetType", "TokensType", "TupleType", "Type",
    "VecType", "ViewSetType", "ViewType", "VocabularyType",
]  # fmt: skip
