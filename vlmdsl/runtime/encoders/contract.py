"""What every encoder is and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from torch import Tensor, nn

from vlmdsl.runtime.data.images import ImageFormat

__all__ = ["OUTPUTS", "EncodedFeatures", "Encoder", "Kind"]

Kind = Literal["Image", "Text", "Image|Text"]
"""The field types that an encoder may take: one, or both with one trunk."""

OUTPUTS = frozenset({"pooled", "tokens", "vocabulary"})
"""Everything an encoder may yield."""


class EncodedFeatures(NamedTuple):
    """Features of one stream, not normalised; what the encoder does not yield is None.

    `pooled [b, D]`, `tokens [b, L, D]`, `mask [b, L]` (bool, true where there is a token; None if all are real). An encoder
    that yields a vocabulary gives `states [b, L, W]`, what its `vocabulary_head` makes logits `[b, L, V]` of: it is for the
    caller to say of which streams, because logits are large.
    """

    pooled: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    states: Tensor | None = None


class Encoder(nn.Module):
    """A tower: takes the values of a field, yields features of `dimension` numbers.

    `kind` is the field type it takes. `yields` says which outputs it computes; what is not asked for has no parameters,
    so every parameter gets a gradient. A subclass implements `forward`.
    """

    image_format: ImageFormat | None = None
    """How images are brought to an image encoder: their size and standardisation."""
    vocabulary_size: int | None = None
    """Token ids of a text encoder are below this."""
    text_length: int | None = None
    """Longest text of a text encoder, in tokens."""
    region_length: int | None = None
    """How many numbers describe a region, of an image encoder that regions may enter part-way."""
    noise_length: int | None = None
    """How many numbers an image encoder draws for each image in training. Its `forward` then takes `noise [b, N]` of that
    length, standard Gumbel noise keyed by the sample; evaluation gives none."""

    def __init__(self, kind: Kind, dimension: int, yields: Iterable[str]) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.dimension = dimension
        self.yields = frozenset(yields)
        self.vocabulary_head: nn.Module | None = None
        """From the last states of a text encoder that yields a vocabulary to logits over its words."""
        if not self.yields or not self.yields <= OUTPUTS:
            raise ValueError(f"an encoder yields some of {', '.join(sorted(OUTPUTS))}, not {sorted(self.yields)}")

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        """Features of a batch.

        An image is `values [b, 3, H, W]` in the encoder's `image_format`. A text is `values [b, L]`, token ids, with
        `mask [b, L]`, true = a token, padding at the end (None: no padding). An encoder of both tells them apart by their
        shape, and takes an image joined with a text as images, the mask of the text, and a third argument `words [b, L]`;
        with `share [b]`, that of the image, both are blended (`SharedTransformer` says how).
        """
        raise TypeError(f"{type(self).__name__} does not define forward")
