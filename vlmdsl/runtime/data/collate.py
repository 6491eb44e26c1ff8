"""From the values of samples to the tensors that towers take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.data.batch import Batch, StreamValues
from vlmdsl.runtime.data.context import Materials, ViewContext
from vlmdsl.runtime.data.fields import MaskedText, TextValue
from vlmdsl.runtime.data.images import ImageFormat
from vlmdsl.runtime.data.masking import asked_places, hide_tokens
from vlmdsl.runtime.data.regions import padded_regions
from vlmdsl.runtime.data.sample import Sample
from vlmdsl.runtime.data.views import View
from vlmdsl.runtime.tokenizer import Tokenizer

__all__ = ["Collator", "text_inputs"]

_FIELD_DTYPES = {"Label": torch.int64, "Key": torch.int64, "Flag": torch.bool, "Number": torch.float32}


@dataclass(frozen=True)
class Collator:
    """Samples to the tensors of a batch."""

    tokenizer: Tokenizer
    images: ImageFormat
    text_length: int

    def batch(self, samples: Sequence[Sample], views: Mapping[str, View], fields: Mapping[str, str]) -> Batch:
        """The batch of these samples: a stream for each view, a tensor for each plain field (name -> kind)."""
        streams = {}
        for name, view in views.items():
            stream = self.stream([sample.streams[name] for sample in samples], view.kind)
            keep = _stacked([sample.kept.get(name) for sample in samples])
            noise = _stacked([sample.noise.get(name) for sample in samples])
            streams[name] = replace(stream, keep=keep, noise=noise)
        plain = {
            name: torch.tensor([sample.fields[name] for sample in samples], dtype=_FIELD_DTYPES[kind])
            for name, kind in fields.items()
        }
        return Batch(streams, plain, [sample.key for sample in samples])

    def stream(self, values: Sequence[np.ndarray | str | MaskedText], kind: str) -> StreamValues:
        """Token ids and their mask of texts, with targets if they are masked; normalised levels of images;
        regions and their mask."""
        masked = [value for value in values if isinstance(value, MaskedText)]
        if masked:
            ids, mask = self.tokenizer.encode([value.text for value in masked], self.text_length)
            changed, targets = hide_tokens(masked, ids, mask, self.tokenizer)
            return StreamValues(changed, mask, targets=targets, asked=asked_places(targets, masked[0].share))
        if kind == "Text":
            ids, mask = self.tokenizer.encode([str(value) for value in values], self.text_length)
            return StreamValues(ids, mask)
        if kind == "Regions":
            regions, real = padded_regions([np.asarray(value) for value in values])
            return StreamValues(torch.from_numpy(regions), torch.from_numpy(real))
        return StreamValues(self.images.tensor(np.asarray(value) for value in values))


def text_inputs(
    view: View, tokenizer: Tokenizer, images: ImageFormat, text_length: int, materials: Materials
) -> Callable[[list[str]], tuple[Tensor, Tensor | None]]:
    """What makes of texts what a view of a text is encoded as: ids and mask, or of a rendered one levels and None."""
    collator = Collator(tokenizer, images, text_length)

    def inputs(texts: list[str]) -> tuple[Tensor, Tensor | None]:
        made = [view.apply(TextValue(text), ViewContext(0, 0, text, images, materials=materials)) for text in texts]
        stream = collator.stream([value.text if isinstance(value, TextValue) else value for value in made], view.kind)
        return stream.values, stream.mask

    return inputs


def _stacked(parts: Sequence[np.ndarray | None]) -> Tensor | None:
    """One tensor of what every sample has; None where none has it."""
    present = [torch.from_numpy(part) for part in parts if part is not None]
    return torch.stack(present) if present else None
