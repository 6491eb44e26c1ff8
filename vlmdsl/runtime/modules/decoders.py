"""Decoders: from visible patches to all pixels, or states, and from token ids to states that predict the next token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vlmdsl.ir.modules import PixelDecoderSettings, TextDecoderSettings, block_range
from vlmdsl.runtime.modules.sequences import (
    SequenceFeatures,
    attention_rule,
    initialise_normal,
    initialise_uniform,
    prepared_context,
    usual_heads,
    with_token,
    without_padding,
)
from vlmdsl.runtime.modules.towers.blocks import Transformer
from vlmdsl.runtime.modules.towers.key_value_cache import KeyValueCache
from vlmdsl.runtime.modules.towers.vit import sine_positions

__all__ = ["PixelDecoder", "TextDecoder", "restored"]


def restored(tokens: Tensor, mask_token: Tensor, keep: Tensor, patches: int) -> Tensor:
    """All patches `[b, P, W]` of the `tokens [b, K, W]`, those of patches `keep [b, K]`, and the `mask_token [W]` for all
    others.

    >>> restored(torch.tensor([[[7.0], [8.0]]]), torch.tensor([0.0]), torch.tensor([[2, 1]]), 3).flatten().tolist()
    [0.0, 8.0, 7.0]
    """
    samples, _, width = tokens.shape
    dropped = mask_token.to(tokens.dtype).expand(samples, patches, width)
    return dropped.scatter(1, keep[:, :, None].expand_as(tokens), tokens)


class PixelDecoder(nn.Module):
    """From the states of visible patches to the pixels of all `patches`, a square number: MAE's decoder (He et al., 2022).
    With `output="states"` to states of all patches, as wide as those that enter.

    Position embeddings are fixed sines of a patch's row and column; tokens without a patch, such as a class token, have
    none. With a `span` the patches are spread over the range of a grid of so many rows.
    """

    positions: Tensor

    def __init__(self, settings: PixelDecoderSettings, states_width: int, patches: int, span: int | None = None) -> None:
        super().__init__()
        grid = math.isqrt(patches)
        if grid**2 != patches:
            raise ValueError(f"{patches} patches are not a square grid")
        self.settings = settings
        self.adapter = nn.Linear(states_width, settings.width)
        self.mask_token = nn.Parameter(torch.empty(settings.width))
        self.register_buffer("positions", sine_positions(grid, settings.width, span), persistent=False)
        self.transformer = Transformer(settings.width, settings.depth, settings.heads)
        self.output = nn.Linear(settings.width, states_width if settings.output == "states" else 3 * settings.patch**2)
        initialise_uniform(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, states: Tensor, keep: Tensor) -> Tensor:
        """Pixels `[b, P, 3 patch^2]`, laid out as `ops.pixels` does, or states `[b, P, W]`.

        `states [b, N + K, W]` are those of the tower: N of no patch, such as a class token's, then those of the patches that
        were kept, whose places, counted row by row, are `keep [b, K]`, in the same order.
        """
        tokens, others = self.adapter(states), states.shape[1] - keep.shape[1]
        patches = restored(tokens[:, others:], self.mask_token, keep, len(self.positions)) + self.positions
        x = torch.cat([tokens[:, :others], patches], dim=1) if others else patches
        predicted = self.output(self.transformer(x)[:, others:])
        return predicted.tanh() if self.settings.output == "tanh" else predicted


class TextDecoder(nn.Module):
    """From token ids `[b, L]` to states `[b, L, W]` that predict the next token, given image tokens of width
    `context_width`; with None the module is for texts alone.

    A linear head computes the logits; its weight may be this module's `embedding.weight`. With a class token the first
    blocks, which do not see the image, also return one vector per text: the state of a token after it (CoCa). One that
    predicts tokens in `parallel` has a learned vector instead of hidden ones (CapPa, Tschannen et al., 2023).
    """

    def __init__(
        self,
        settings: TextDecoderSettings,
        vocabulary_size: int,
        text_length: int,
        context_width: int | None,
        *,
        parallel: bool = False,
    ) -> None:
        super().__init__()
        width, depth = settings.width or context_width, settings.depth
        if not width:
            raise ValueError("a decoder without a context needs a width")
        self.settings, self.width, self.heads = settings, width, usual_heads(settings.heads, width)
        self.cross_from = round(settings.cross_from * depth)
        if settings.class_token and not self.cross_from:
            raise ValueError("a class token collects the text in blocks that do not see the image, and every block sees it")
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Parameter(torch.empty(text_length, width))
        self.mask_token = nn.Parameter(torch.empty(width)) if parallel else None
        self.class_token = nn.Parameter(torch.empty(width)) if settings.class_token else None
        self.class_norm = nn.LayerNorm(width) if settings.class_token else None
        self.transformer = Transformer(width, depth, self.heads, context_width, cross_from=self.cross_from)
        initialise_normal(self)

    def forward(
        self,
        values: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        *,
        causal: bool = True,
        prefix: Tensor | None = None,
        parallel: Tensor | None = None,
        blocks: tuple[float, float] = (0.0, 1.0),
        cache: KeyValueCache | None = None,
    ) -> SequenceFeatures:
        """States of texts through a share of the `blocks`; from the first on of token ids `[b, L]`, else of the states
        `[b, L, W]` that the blocks before gave.

        `mask [b, L]` and `context_mask [b, K]` are true where there is a token; padding is at the end. A token sees those
        before it, those of the `prefix [b]` and itself, and without `causal` all of the text. Where `parallel [b]` is true
        all L tokens of a text are hidden, padding like any other, and see one another: its length is hidden too. The norm
        that ends the stack is in its last block's states only.

        With a `cache` the texts `[n, L]` come after the tokens of earlier calls, the first of which has the whole prefix.
        All blocks run, and no class token collects the text. Texts of one context come one after the other: `n` is a
        multiple of `b`.
        """
        places = None
        if cache is not None:
            if parallel is not None or not causal or blocks != (0.0, 1.0):
                raise ValueError("a cache is for all blocks of a causal decoder, which predicts one token after the other")
            places = cache.extend(torch.ones_like(values, dtype=torch.bool) if mask is None else mask)
        if parallel is not None:
            length = values.shape[1]
            whole = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if mask is None else mask
            mask = whole | parallel[:, None]
            prefix = torch.where(
                parallel, length, torch.zeros_like(parallel, dtype=torch.long) if prefix is None else prefix
            )
        part = block_range(self.settings.depth, blocks)
        alone = range(part.start, min(part.stop, self.cross_from))
        informed = range(max(part.start, self.cross_from), part.stop)
        x, pooled = without_padding(values if part.start else self._embedded(values, parallel, places), mask), None
        if alone:
            x, pooled = self._alone(x, mask, alone, causal, prefix, cache)
        if informed:
            if context is not None:
                context, context_mask = prepared_context(context, context_mask)
            attended, kernel = attention_rule(x.shape[1], mask, causal=causal, prefix=prefix, cache=cache, device=x.device)
            x = self.transformer(x, attended, kernel, context, context_mask, informed.start, informed.stop, cache)
        return SequenceFeatures(x, mask, pooled)

    def _alone(
        self,
        x: Tensor,
        mask: Tensor | None,
        part: range,
        causal: bool,
        prefix: Tensor | None,
        cache: KeyValueCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The states of the blocks that see no image, and that of the class token, which no other token sees."""
        length, collects = x.shape[1], self.class_token is not None and cache is None
        if self.class_token is not None and collects:
            if part != range(self.cross_from):
                raise ValueError(
                    "the class token collects the text in all blocks that do not see the image: run them at once"
                )
            x, mask = with_token(x, self.class_token, mask)
        attended, kernel = attention_rule(
            x.shape[1], mask, causal=causal, prefix=prefix, appended=collects, cache=cache, device=x.device
        )
        x = self.transformer(x, attended, kernel, first=part.start, last=part.stop, cache=cache)
        return x[:, :length], self.class_norm(x[:, length]) if self.class_norm is not None and collects else None

    def _embedded(self, ids: Tensor, parallel: Tensor | None, places: Tensor | None) -> Tensor:
        """Words and their positions: the `places [b, L]` in the texts, or else from the first one on."""
        length, longest = ids.shape[1] if places is None else int(places.max()) + 1, len(self.positions)
        if length > longest:
            raise ValueError(f"texts of {length} tokens; this decoder takes at most {longest}")
        words = self.embedding(ids)
        if parallel is not None:
            if self.mask_token is None:
                raise ValueError("this decoder was built without parallel prediction: it has no mask token")
            words = torch.where(parallel[:, None, None], self.mask_token.to(words.dtype), words)
        return words + (self.positions[:length] if places is None else self.positions[places])
