"""Importing this module registers the whole kernel: one line a family."""

from vlmdsl.primitives import (
    candidates,
    criteria,
    distributions,
    draws,
    encoding,
    fusion,
    heads,
    image_views,
    masks,
    matrices,
    mining,
    ramps,
    reconstruction,
    reductions,
    reference,
    scalars,
    similarities,
    soft_targets,
    state,
    targets,
    text_views,
    towers,
    views,
)

__all__ = ["FAMILIES"]

FAMILIES = (
    views, image_views, text_views, masks, encoding, heads, towers, fusion, reconstruction, similarities, matrices, criteria,
    candidates, targets, soft_targets, distributions, reductions, scalars, draws, ramps, state, reference, mining,
)  # fmt: skip
