"""The table of contents of the kernel: which module of this package registers which primitives.

A recipe uses a few families, and importing all of them would take a large part of the time of `vlmdsl check`; so a family is
imported when one of its names is first looked up (`registry.registered`). A test compares the table with the modules.
"""

from __future__ import annotations

__all__ = ["FAMILIES", "HOMES"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "views": ("viewed", "each"),
    "image_views": ("crop", "augment", "multi_crop", "drop"),
    "text_views": ("rewrite", "eda", "summarize", "render"),
    "masks": ("random", "blocks", "whole_words", "spans", "mask"),
    "encoding": ("frozen", "ema", "normalize", "gate", "max_pool", "mean_pool", "stop"),
    "heads": ("project", "predict"),
    "towers": ("shared", "enter", "separate", "join"),
    "fusion": ("fuse", "matched"),
    "pairing": ("swap", "matches", "matching"),
    "prediction": ("linear", "token_loss", "mlm"),
    "distillation": ("distill",),
    "pooling": ("pool",),
    "generation": ("text_decoder", "prefix", "next_token", "written"),
    "codes": ("codebook", "codes"),
    "reconstruction": ("decode", "pixels", "reconstruct"),
    "naming": ("dictionary", "text_of", "prompt", "concepts", "word_map"),
    "detection": ("token_head", "atss", "giou", "centreness", "word_bias", "around_patches"),
    "set_matching": ("match_boxes", "soft_token_loss", "token_contrast_loss", "box_error", "matched_iou"),
    "grounding": ("regions", "alignment", "focal", "region_distillation", "region_contrast"),
    "grouping": ("assignment", "segment_mean", "assignment_divergence"),
    "similarities": ("cosine", "dot", "euclidean", "tokenmax", "tokenmean"),
    "matrices": ("similarity", "score", "transpose", "reuse", "row_sum", "row_mean", "restrict"),
    "criteria": ("cross_entropy", "sigmoid_loss", "hinge", "logsumexp"),
    "candidates": ("unite", "exclude_pairs"),
    "targets": ("paired", "flipped", "same", "smooth"),
    "soft_targets": ("softmax", "transport", "kl"),
    "distributions": ("distribution", "entropy", "entropy_of_mean"),
    "reductions": ("mean", "sum", "samples"),
    "scalars": ("learned", "one_of", "exp", "log", "softplus", "min", "max", "clamp", "where", "complement"),
    "draws": ("beta", "uniform", "mix", "blend"),
    "ramps": ("ramp", "cosine_ramp"),
    "state": ("running_mean", "queue", "nearest"),
    "mixture": ("mixture",),
    "reference": ("reference", "retrieve", "attend"),
    "mining": ("mine", "take", "picked"),
}  # fmt: skip
"""The primitives of each module."""

HOMES = {name: family for family, names in FAMILIES.items() for name in names}
"""The module of each primitive."""
