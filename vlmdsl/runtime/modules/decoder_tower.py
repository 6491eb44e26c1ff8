"""The tower of a text decoder: token ids and a context to states that predict the next token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, nn

from vlmdsl.ir.modules import TextDecoderSettings
from vlmdsl.runtime.modules.decoders import TextDecoder
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.key_value_cache import KeyValueCache

__all__ = ["TextDecoderTower"]


class TextDecoderTower(Encoder):
    """A text decoder as a tower: what it encodes is a text, given a context of tokens of `context_width` features.

    Its pooled features are those of the class token, mapped to `dimension` numbers; its logits those of the next token.
    `parallel` says that some texts are predicted all at once.

    >>> import torch
    >>> tower = TextDecoderTower(TextDecoderSettings(depth=1), 16, 7, 5, 4, 8, ("vocabulary",))
    >>> tower(torch.zeros(2, 5, dtype=torch.long), context=torch.zeros(2, 3, 8)).states.shape
    torch.Size([2, 5, 16])
    """

    causal, takes_cache = True, True

    def __init__(
        self,
        settings: TextDecoderSettings,
        width: int,
        vocabulary_size: int,
        text_length: int,
        dimension: int,
        context_width: int | None,
        yields: Iterable[str] = ("vocabulary",),
        *,
        parallel: bool = False,
    ) -> None:
        super().__init__("Text", dimension, yields)
        self.settings = settings
        self.vocabulary_size, self.text_length, self.states_width = vocabulary_size, text_length, width
        self.decoder = TextDecoder(
            replace(settings, width=width), vocabulary_size, text_length, context_width, parallel=parallel
        )
        self.pooled_projection = nn.Linear(width, dimension, bias=False) if "pooled" in self.yields else None
        self.token_projection = nn.Linear(width, dimension, bias=False) if "tokens" in self.yields else None
        if "vocabulary" in self.yields:
            self.vocabulary_head = nn.Linear(width, vocabulary_size)

    @property
    def token_embedding(self) -> nn.Module:
        """The embedding of token ids."""
        return self.decoder.embedding

    def forward(
        self,
        values: Tensor,
        mask: Tensor | None = None,
        *,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        prefix: Tensor | None = None,
        parallel: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> EncodedFeatures:
        """Features of texts `values [b, L]`; the other arguments are those of `TextDecoder`. Without a context only what
        does not depend on one means what it does in training; with a `cache` there are no pooled features."""
        output = self.decoder(values, mask, context, context_mask, prefix=prefix, parallel=parallel, cache=cache)
        pooled = None if self.pooled_projection is None or cache is not None else self.pooled_projection(output.pooled)
        return EncodedFeatures(
            pooled=pooled,
            tokens=None if self.token_projection is None else self.token_projection(output.tokens),
            mask=mask,
            states=output.tokens if self.yields & {"vocabulary", "states"} else None,
        )
