"""Values: the contents of a batch for each field, and how they are read and collated; one class per kind.

`tuples` has the operations on all of them, `family` the interface of a kind, `batch` what the loader passes to the model.
"""

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.batch import Batch, port
from vlmdsl.runtime.values.boxes import BoxBatch, BoxesValue
from vlmdsl.runtime.values.calls import Share, TowerInput, call_together
from vlmdsl.runtime.values.family import Family, FieldColumns, SampleColumns, family_of, first_value
from vlmdsl.runtime.values.image import ImageBatch, ImageFormat, StandardisedImages, resized
from vlmdsl.runtime.values.mask import (
    NOT_SELECTED,
    KeptPatches,
    MaskedText,
    MaskedTokens,
    OwnTexts,
    ReplacedPatches,
    dropped_first,
    kept,
    masked_batch,
    replaced,
    token_ids,
)
from vlmdsl.runtime.values.noise import Noise, gumbel_noise
from vlmdsl.runtime.values.phrases import (
    ConceptBatch,
    ConceptsValue,
    NamingText,
    PhrasesValue,
    WordMaps,
    joined_phrases,
    word_maps,
)
from vlmdsl.runtime.values.regions import RegionBatch
from vlmdsl.runtime.values.scalar import MISSING_LABEL, ScalarBatch, key_number
from vlmdsl.runtime.values.segments import PatchSegments, patch_segments
from vlmdsl.runtime.values.splits import Parallel, Prefix, next_ids, prefix_lengths, prompted
from vlmdsl.runtime.values.text import TextBatch, TextFormat, TextValue
from vlmdsl.runtime.values.tuples import Value, cat, count, length, map_tensors, pad, shorten, split, take, to

__all__ = [
    "BadSample", "Batch", "BoxBatch", "BoxesValue", "ConceptBatch", "ConceptsValue", "Family", "FieldColumns",
    "ImageBatch", "ImageFormat", "KeptPatches", "MISSING_LABEL", "MaskedText", "MaskedTokens", "NOT_SELECTED",
    "NamingText", "Noise", "OwnTexts", "Parallel", "PatchSegments", "PhrasesValue", "Prefix", "RegionBatch",
    "ReplacedPatches", "SampleColumns", "ScalarBatch", "Share", "StandardisedImages", "TextBatch", "TextFormat",
    "TextValue", "TowerInput", "Value", "WordMaps", "call_together", "cat", "count", "dropped_first", "family_of",
    "first_value", "gumbel_noise", "joined_phrases", "kept", "key_number", "length", "map_tensors", "masked_batch",
    "next_ids", "pad", "patch_segments", "port", "prefix_lengths", "prompted", "replaced", "resized", "shorten", "split",
    "take", "to", "token_ids", "word_maps",
]  # fmt: skip
