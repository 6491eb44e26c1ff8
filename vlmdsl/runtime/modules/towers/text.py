"""The built-in text tower: a transformer over token ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers.blocks import Transformer
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder

__all__ = ["PRESETS", "TextConfig", "TextTransformer"]


@dataclass(frozen=True)
class TextConfig:
    """The shape of a text tower; `text_length` is the longest text, in tokens.

    `causal`: a token sees those before it (as in CLIP); else all tokens see one another. `normed`: embedded tokens are
    normalised (as in BERT). Otherwise they are far weaker than what the blocks add to them, and in a narrow tower the states
    of a word are hardly more alike than those of different ones: to tell words apart takes many steps.
    """

    width: int
    depth: int
    heads: int
    vocabulary_size: int = 49_408
    text_length: int = 77
    causal: bool = True
    normed: bool = False


PRESETS: dict[str, TextConfig] = {
    "tiny": TextConfig(width=64, depth=2, heads=2, vocabulary_size=1024, text_length=32),
    "tiny_bidirectional": TextConfig(
        width=64, depth=2, heads=2, vocabulary_size=1024, text_length=32, causal=False, normed=True
    ),
    "small": TextConfig(width=384, depth=12, heads=6),
    "base": TextConfig(width=512, depth=12, heads=8),
}


class TextTransformer(Encoder):
    """Token ids `[b, L]` to the feature of the last token and one feature per token.

    Padding is at the end of a text and changes nothing before it.
    """

    def __init__(self, config: TextConfig, dimension: int, yields: Iterable[str] = ("pooled", "tokens")) -> None:
        super().__init__("Text", dimension, yields)
        self.config = config
        self.vocabulary_size = config.vocabulary_size
        self.states_width = config.width
        self.text_length = config.text_length
        self.causal = config.causal
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Parameter(torch.empty(config.text_length, config.width))
        self.embedding_norm = nn.LayerNorm(config.width) if config.normed else None
        self.transformer = Transformer(config.width, config.depth, config.heads)
        self.pooled_projection = nn.Linear(config.width, dimension, bias=False) if "pooled" in self.yields else None
        self.token_projection = nn.Linear(config.width, dimension, bias=False) if "tokens" in self.yields else None
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        # Last, so that it changes no draw of the weights before it.
        if "vocabulary" in self.yields:
            self.vocabulary_head = nn.Linear(config.width, config.vocabulary_size)

    @property
    def shared_blocks(self) -> Transformer:
        return self.transformer

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        """Features of texts; an empty text is read as its first padding token, so that no feature is undefined."""
        length = values.shape[1]
        if length > self.config.text_length:
            raise ValueError(f"texts of {length} tokens; this encoder takes at most {self.config.text_length}")
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        embedded = self.embedding(values) + self.positions[:length]
        if self.embedding_norm is not None:
            embedded = self.embedding_norm(embedded)
        causal = self.config.causal
        # Padding comes last, so causal attention never sees it from a token.
        hidden = self.transformer(embedded, mask=None if causal else never_empty(mask), causal=causal)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(last_token(hidden, mask)),
            tokens=None if self.token_projection is None else self.token_projection(hidden),
            mask=mask,
            states=hidden if self.yields & {"vocabulary", "states"} else None,
            embedded=embedded if "embedded" in self.yields else None,
        )


def never_empty(mask: Tensor) -> Tensor:
    """`mask [b, L]` with the first position set where no other is: attention without any position is undefined."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """`[b, W]`: of `hidden [b, L, W]` the last position that `mask [b, L]` calls a token; the first if there is none."""
    order = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * order).amax(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
