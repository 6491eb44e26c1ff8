"""The form in which a tower takes its inputs: images of a size and standardisation, texts as the ids of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vlmdsl.runtime.data.images import ImageFormat
from vlmdsl.runtime.tokenizer import Side, Tokenizer

__all__ = ["InputForm", "InputForms", "TextFormat"]


@dataclass(frozen=True)
class TextFormat:
    """Texts as `length` ids of a tokenizer, marks and padding included; padding is at the end unless it is said to be
    elsewhere, for a tower that reads it."""

    tokenizer: Tokenizer
    length: int
    padding_side: Side = "right"

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `int64 [b, length]` and the mask `bool [b, length]`, true = a token: see `Tokenizer.encode`."""
        return self.tokenizer.encode(texts, self.length, self.padding_side)


InputForm = ImageFormat | TextFormat


@dataclass(frozen=True)
class InputForms:
    """The form of each stream of a batch: the one in `of` under its name, else `images` or `texts`."""

    images: ImageFormat
    texts: TextFormat
    of: Mapping[str, InputForm] = field(default_factory=dict)

    def image(self, stream: str) -> ImageFormat:
        """The form of a stream of images."""
        form = self.of.get(stream)
        return form if isinstance(form, ImageFormat) else self.images

    def text(self, stream: str) -> TextFormat:
        """The form of a stream of texts."""
        form = self.of.get(stream)
        return form if isinstance(form, TextFormat) else self.texts
