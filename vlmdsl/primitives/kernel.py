"""Importing this module registers the whole kernel: one line a family."""

from vlmdsl.primitives import (
    candidates,
    distributions,
    encoding,
    masks,
    matrices,
    reductions,
    scalars,
    similarities,
    soft_targets,
    state,
    targets,
    views,
)

__all__ = ["FAMILIES"]

FAMILIES = (
    views, masks, encoding, similarities, matrices, candidates, targets, soft_targets, distributions, reductions, scalars,
    state,
)  # fmt: skip
