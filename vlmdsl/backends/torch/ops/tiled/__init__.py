"""The `chunked` lowering: what would have the size of the pair grid is made a block of rows at a time, and made again in the
backward pass.

Every loop over blocks is inside one custom operator, so that a compiled graph holds one node, whatever the sizes. Functions
are named as those of `ops` that they stand for, and give the same values and gradients.
"""

from vlmdsl.backends.torch.ops.tiled.contrast import contrast
from vlmdsl.backends.torch.ops.tiled.sigmoid import sigmoid_loss
from vlmdsl.backends.torch.ops.tiled.similarities import similarity

__all__ = ["contrast", "sigmoid_loss", "similarity"]
