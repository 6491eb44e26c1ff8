"""Encoders, which turn the values of a field into features."""

from vlmdsl.runtime.modules.towers.build import Request, build_encoder, encoder_names, longest_text
from vlmdsl.runtime.modules.towers.codes import CodebookTower
from vlmdsl.runtime.modules.towers.contract import LONGEST_USUAL_TEXT, EncodedFeatures, Encoder, Kind, usual_text_length
from vlmdsl.runtime.modules.towers.groupvit import GroupingConfig, GroupingTransformer
from vlmdsl.runtime.modules.towers.key_value_cache import KeyValueCache
from vlmdsl.runtime.modules.towers.names import folder_of, is_pretrained
from vlmdsl.runtime.modules.towers.shared import SharedConfig, SharedTransformer
from vlmdsl.runtime.modules.towers.text import TextConfig, TextTransformer
from vlmdsl.runtime.modules.towers.vit import VisionConfig, VisionTransformer

__all__ = [
    "LONGEST_USUAL_TEXT",
    "CodebookTower",
    "EncodedFeatures",
    "Encoder",
    "GroupingConfig",
    "GroupingTransformer",
    "KeyValueCache",
    "Kind",
    "Request",
    "SharedConfig",
    "SharedTransformer",
    "TextConfig",
    "TextTransformer",
    "VisionConfig",
    "VisionTransformer",
    "build_encoder",
    "encoder_names",
    "folder_of",
    "is_pretrained",
    "longest_text",
    "usual_text_length",
]
