"""Modules on top of towers: fusion, decoders, poolers, linear heads and codebooks."""

from vlmdsl.runtime.modules.codebook import Codebook
from vlmdsl.runtime.modules.decoder_tower import TextDecoderTower
from vlmdsl.runtime.modules.decoders import PixelDecoder, TextDecoder
from vlmdsl.runtime.modules.fusion import Fusion, MergedFusion, fusion
from vlmdsl.runtime.modules.linear import LinearHead
from vlmdsl.runtime.modules.pooler import AttentionalPooler
from vlmdsl.runtime.modules.sequences import SequenceFeatures
from vlmdsl.runtime.modules.token_heads import TokenHead

__all__ = [
    "AttentionalPooler",
    "Codebook",
    "Fusion",
    "LinearHead",
    "MergedFusion",
    "PixelDecoder",
    "TokenHead",
    "SequenceFeatures",
    "TextDecoder",
    "TextDecoderTower",
    "fusion",
]
