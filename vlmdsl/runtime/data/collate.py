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
from vlmdsl.runtime.data.forms import InputForms
from vlmdsl.runtime.data.masking import asked_places, hide_tokens
from vlmdsl.runtime.data.regions import padded_regions
from vlmdsl.runtime.data.sample import Sample
from vlmdsl.runtime.data.views import View

__all__ = ["Collator", "text_inputs"]

_FIELD_DTYPES = {"Label": torch.int64, "Key": torch.int64, "Flag": torch.bool, "Number": torch.float32}


@dataclass(frozen=True)
class Collator:
    """Samples to the tensors of a batch."""

    forms: InputForms

    def batch(self, samples: Sequence[Sample], views: Mapping[str, View], fields: Mapping[str, str]) -> Batch:
        """The batch of these samples: a stream for each view, a tensor for each plain field (name -> kind)."""
        streams = {}
        for name, view in views.items():
            stream = self.stream([sample.streams[name] for sample in samples], view.kind, name)
            keep = _stacked([sample.kept.get(name) for sample in samples])
            noise = _stacked([sample.noise.get(name) for sample in samples])
            streams[name] = replace(stream, keep=keep, noise=noise)
        plain = {
            name: torch.tensor([sample.fields[name] for sample in samples], dtype=_FIELD_DTYPES[kind])
            for name, kind in fields.items()
        }
        return Batch(streams, plain, [sample.key for sample in samples])

    def stream(self, values: Sequence[np.ndarray | str | MaskedText], kind: str, name: str) -> StreamValues:
        """Token ids and their mask of texts, with targets if they are masked; normalised levels of images;
        regions and their mask. They are in the form of the stream called `name`."""
        masked = [value for value in values if isinstance(value, MaskedText)]
        if masked:
            texts = self.forms.text(name)
            ids, mask = texts.encode([value.text for value in masked])
            changed, targets = hide_tokens(masked, ids, mask, texts.tokenizer)
            return StreamValues(changed, mask, targets=targets, asked=asked_places(targets, masked[0].share))
        if kind == "Text":
            ids, mask = self.forms.text(name).encode([str(value) for value in values])
            return StreamValues(ids, mask)
        if kind == "Regions":
            regions, real = padded_regions([np.asarray(value) for value in values])
            return StreamValues(torch.from_numpy(regions), torch.from_numpy(real))
        return StreamValues(self.forms.image(name).tensor(np.asarray(value) for value in values))


def text_inputs(view: View, forms: InputForms, materials: Materials) -> Callable[[list[str]], tuple[Tensor, Tensor | None]]:
    """What makes of texts what a view of the field `view.field` is encoded as: ids and mask, or of a rendered one levels
    and None."""
    collator = Collator(forms)
    images = forms.image(view.field)

    def inputs(texts: list[str]) -> tuple[Tensor, Tensor | None]:
        made = [view.apply(TextValue(text), ViewContext(0, 0, text, images, materials=materials)) for text in texts]
        values = [value.text if isinstance(value, TextValue) else value for value in made]
        stream = collator.stream(values, view.kind, view.field)
        return stream.values, stream.mask

    return inputs


def _stacked(parts: Sequence[np.ndarray | None]) -> Tensor | None:
    """One tensor of what every sample has; None where none has it."""
    present = [torch.from_numpy(part) for part in parts if part is not None]
    return torch.stack(present) if present else None
