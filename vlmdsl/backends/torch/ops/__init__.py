"""The operations that emitted source calls: one function each, named as in `docs/architecture.md` section 3."""

from vlmdsl.backends.torch.ops import tiled as tiled
from vlmdsl.backends.torch.ops.candidates import exclude_own, exclude_pairs, unite, unite_targets
from vlmdsl.backends.torch.ops.contrast import ContrastResult, Direction, contrast, contrast_of
from vlmdsl.backends.torch.ops.criteria import (
    cross_entropy,
    hinge,
    log_sum_exp,
    mean,
    row_mean,
    row_sum,
    samples,
    samples_where,
    sigmoid_loss,
    target_entropy,
)
from vlmdsl.backends.torch.ops.detection import around_patches, assigned_words, atss, centreness, giou
from vlmdsl.backends.torch.ops.distributions import distribution, entropy, entropy_of_mean
from vlmdsl.backends.torch.ops.elementwise import (
    add,
    add_features,
    clamp,
    divide,
    equal,
    exp,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negate,
    not_equal,
    softplus,
    subtract,
    subtract_features,
    where,
)
from vlmdsl.backends.torch.ops.grounding import (
    alignment,
    focal,
    region_contrast,
    region_distillation,
    regions,
    regions_with_words,
    word_bias,
    word_map,
)
from vlmdsl.backends.torch.ops.grouping import assignment_divergence, segment_mean
from vlmdsl.backends.torch.ops.language import codes_at, distill, token_loss
from vlmdsl.backends.torch.ops.matching import matched, matching
from vlmdsl.backends.torch.ops.mining import fetch, hardest, mine, picked
from vlmdsl.backends.torch.ops.mixing import mix
from vlmdsl.backends.torch.ops.normalize import gate, normalize, reduce_tokens, retain, stop, tokens
from vlmdsl.backends.torch.ops.per_sample import lookup, mixture, running_means, write
from vlmdsl.backends.torch.ops.plugins import plugin_criterion, plugin_target, plugin_token_criterion
from vlmdsl.backends.torch.ops.reconstruction import patch_side, pixels, reconstruct
from vlmdsl.backends.torch.ops.retrieval import attend, best_entries, best_entries_by_index, retrieve, take
from vlmdsl.backends.torch.ops.set_matching import (
    box_error,
    match_boxes,
    matched_iou,
    soft_token_loss,
    token_contrast_loss,
)
from vlmdsl.backends.torch.ops.similarities import exclude, gather, reuse, score, similarity, transpose
from vlmdsl.backends.torch.ops.soft_targets import softmax, transport
from vlmdsl.backends.torch.ops.state import enqueue, nearest, running_mean
from vlmdsl.backends.torch.ops.targets import add_targets, flipped, others, paired, same, scale_target, smooth, uniform
from vlmdsl.backends.torch.ops.vocabulary import SoftTargets, linear_cross_entropy
from vlmdsl.backends.torch.values import Picks, Similarities, Target, TargetPart, TokenFeatures, WordMap

__all__ = [
    "ContrastResult", "Direction", "Picks", "Similarities", "SoftTargets", "Target", "TargetPart", "TokenFeatures",
    "WordMap", "add", "add_features", "add_targets", "alignment", "around_patches", "assigned_words",
    "assignment_divergence", "atss",
    "attend", "best_entries", "best_entries_by_index", "box_error", "centreness", "clamp", "codes_at",
    "contrast", "contrast_of", "cross_entropy", "distill", "distribution", "divide", "enqueue", "entropy", "entropy_of_mean",
    "equal", "exclude", "exclude_own", "exclude_pairs", "exp", "fetch", "flipped", "focal", "gate", "gather", "giou",
    "greater", "greater_equal", "hardest", "hinge", "less", "less_equal", "linear_cross_entropy", "log", "log_sum_exp",
    "logical_and", "logical_not", "logical_or", "lookup", "match_boxes", "matched", "matched_iou", "matching", "maximum",
    "mean", "mine", "minimum", "mix", "mixture", "multiply", "nearest", "negate", "normalize", "not_equal", "others",
    "paired", "patch_side", "picked", "pixels", "plugin_criterion", "plugin_target", "plugin_token_criterion", "reconstruct",
    "reduce_tokens", "region_contrast", "region_distillation", "regions", "regions_with_words", "retain", "retrieve",
    "reuse", "row_mean", "row_sum", "running_mean", "running_means", "same", "samples", "samples_where", "scale_target",
    "score", "segment_mean", "sigmoid_loss", "similarity", "smooth", "soft_token_loss", "softmax", "softplus", "stop",
    "subtract", "subtract_features", "take", "target_entropy", "token_contrast_loss", "token_loss", "tokens", "transport",
    "transpose", "uniform", "unite", "unite_targets", "where", "word_bias", "word_map", "write",
]  # fmt: skip
