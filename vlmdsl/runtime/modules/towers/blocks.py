"""Transformer blocks that every built-in tower is made of: pre-norm, on `scaled_dot_product_attention`."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlmdsl.runtime.modules.towers.key_value_cache import KeyValueCache

__all__ = ["Attention", "Block", "FeedForward", "Transformer", "initialise", "keep_tokens"]


class Attention(nn.Module):
    """Multi-head attention of `x` to itself, or to a `context` of `context_width` features."""

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width or width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """`x [b, L, W]`; `mask`, true = may be attended to, is `[b, K]` for every query alike or `[b, L, K]`.

        `causal` lets position i see positions up to i; it excludes a mask, as the kernels do. With a `cache` attention is to
        the tokens of earlier calls too, and to the context of the first call.
        """
        query = self._split(self.query(x))
        if cache is None:
            key, value = self._keys_and_values(x if context is None else context)
        elif context is None:
            key, value = cache.of_tokens(self, *self._keys_and_values(x))
        else:
            key, value = cache.of_context(self, partial(self._keys_and_values, context))
        if mask is not None:
            mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _keys_and_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def _split(self, x: Tensor) -> Tensor:
        """`[b, L, W]` to `[b, heads, L, W / heads]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, expansion: int = 4) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, expansion * width)
        self.output = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(functional.gelu(self.hidden(x)))


class Block(nn.Module):
    """Self-attention, cross-attention if the block has a `context_width`, and a feed-forward layer, each added to `x`.

    Without a context in the call, cross-attention is off: the same block then encodes one modality alone. A `gated` one is
    multiplied by a learned number that starts at 0.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None, *, gated: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if context_width else None
        self.cross_attention = Attention(width, heads, context_width) if context_width else None
        self.cross_gate = nn.Parameter(torch.zeros(1)) if context_width and gated else None
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.recompute = False
        """Whether activations are computed again in the backward pass instead of being kept."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        arguments = x, mask, causal, context, context_mask, cache
        if self.recompute and torch.is_grad_enabled():
            output: Tensor = checkpoint(self._added, *arguments, use_reentrant=False)
            return output
        return self._added(*arguments)

    def _added(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        context: Tensor | None,
        context_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask=mask, causal=causal, cache=cache)
        if context is not None:
            if self.cross_attention is None or self.cross_norm is None:
                raise ValueError("this block was built without cross-attention, but got a context")
            queries = self.cross_norm(x)
            if cache is not None:  # the texts of one context attend to it together, as one longer text would
                queries = queries.reshape(len(context), -1, queries.shape[-1])
            attended = self.cross_attention(queries, context, context_mask, cache=cache).view_as(x)
            x = x + (attended if self.cross_gate is None else self.cross_gate * attended)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    """`depth` blocks and the norm that ends a pre-norm stack; those from number `cross_from` on attend to a context of
    `context_width` features."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        context_width: int | None = None,
        *,
        cross_from: int = 0,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.blocks = nn.ModuleList(
            Block(width, heads, context_width if number >= cross_from else None, gated=gated) for number in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        initialise(self)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        first: int = 0,
        last: int | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """`x` through the blocks from number `first` to before number `last`; the norm follows the last block of all
        only. With a `cache` the tokens `x` come after those of earlier calls."""
        for block in self.blocks[first:last]:
            x = block(x, mask, causal, context, context_mask, cache)
        return self.norm(x) if last is None or last == len(self.blocks) else x


def initialise(transformer: nn.Module) -> None:
    """Weights of variance 1 / fan-in and no bias; what is added to the residual stream is smaller the deeper the stack.

    A stack of depth d adds 2 d terms to the stream (3 d with cross-attention); a factor `1 / sqrt(terms)` keeps its
    variance near that of the input, the rule of GPT-2.
    """
    additions = 0
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        additions += isinstance(module, Attention | FeedForward)
    with torch.no_grad():
        for module in transformer.modules():
            if isinstance(module, Attention | FeedForward):
                module.output.weight.mul_(1 / math.sqrt(additions))


def keep_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """The tokens `[b, K, W]` at `indices [b, K]` of `tokens [b, L, W]`, in the order of the indices."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[-1]))
