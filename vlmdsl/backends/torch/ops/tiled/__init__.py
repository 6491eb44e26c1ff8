"""The `chunked` lowering: a block of rows of the similarity matrix at a time, made again in the backward pass.

Every loop over blocks is inside one custom operator, so that a compiled graph holds one node, whatever the sizes. Functions
are named as those of `ops` that they stand for, and give the same values and gradients.
"""

from vlmdsl.backends.torch.ops.tiled.contrast import contrast
from vlmdsl.backends.torch.ops.tiled.sigmoid import sigmoid_loss
from vlmdsl.backends.torch.ops.tiled.similarities import similarity

__all__ = ["contrast", "sigmoid_loss", "similarity"]
