"""The built-in towers as others describe a transformer: which of them have a counterpart there, and their weights by role.

A vision transformer with a linear patch embedding, pre-norm blocks, GELU and fixed positions, and a causal text transformer
that is read at its end mark. What differs between the libraries is only what they call the weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from vlmdsl.runtime.modules.towers import TextTransformer, VisionTransformer
from vlmdsl.runtime.modules.towers.blocks import Block, Transformer
from vlmdsl.runtime.trained.exports.sides import ImageSide, TextSide

__all__ = ["MLP_RATIO", "block_weights", "end_mark", "text_obstacle", "vision_obstacle"]

MLP_RATIO = 4
"""Width of the hidden layer of a block, in widths of the block."""


def vision_obstacle(side: ImageSide) -> str | None:
    """Why the image tower has no counterpart in a plain vision transformer; None if it has."""
    tower = side.tower
    if side.heads:
        return _headed(side.name)
    if not isinstance(tower, VisionTransformer):
        return f"the architecture of its tower `{side.name}` ({type(tower).__name__}) is not known to the library"
    if tower.config.stem != "patch":
        return (
            f"its tower `{side.name}` embeds patches by overlapping convolutions, for which the library has no module; "
            "`vit:tiny_patch4`, `vit:tiny_patch8`, `vit:small` and `vit:base` embed each by one linear map"
        )
    if tower.class_token is None:
        return f"its tower `{side.name}` averages its patches, where the library reads a class token"
    return None


def text_obstacle(side: TextSide) -> str | None:
    """Why the text tower has no counterpart in the text transformer of CLIP; None if it has."""
    tower = side.tower
    if side.heads:
        return _headed(side.name)
    if not isinstance(tower, TextTransformer):
        return f"the architecture of its tower `{side.name}` ({type(tower).__name__}) is not known to the library"
    if not tower.config.causal:
        return f"its tower `{side.name}` is not causal, as CLIP's is"
    if side.form.tokenizer.end is None:
        return f"its tower `{side.name}` is read at the last token, and the tokenizer does not mark it"
    return None


def _headed(name: str) -> str:
    return f"features of its tower `{name}` go through a head, for which the library has no module"


def end_mark(side: TextSide) -> int:
    """The id of the end mark, at which the text tower is read."""
    assert side.form.tokenizer.end is not None
    return side.form.tokenizer.end


def block_weights(transformer: Transformer) -> list[dict[str, nn.Parameter | Tensor]]:
    """The weights of each block by role: `norm_1.weight`, `query.bias`, `hidden.weight`, ..."""
    return [_roles(block) for block in transformer.blocks if isinstance(block, Block)]


def _roles(block: Block) -> dict[str, nn.Parameter | Tensor]:
    attention = block.attention
    weights: dict[str, nn.Parameter | Tensor] = {}
    for what in ("weight", "bias"):
        key, value = getattr(attention.key_value, what).chunk(2)
        weights |= {
            f"norm_1.{what}": getattr(block.attention_norm, what),
            f"query.{what}": getattr(attention.query, what),
            f"key.{what}": key,
            f"value.{what}": value,
            f"output.{what}": getattr(attention.output, what),
            f"norm_2.{what}": getattr(block.feed_forward_norm, what),
            f"hidden.{what}": getattr(block.feed_forward.hidden, what),
            f"feed_forward.{what}": getattr(block.feed_forward.output, what),
        }
    return weights
