"""One call of a tower for several streams: what fits into one batch is encoded as one. And the tokens that a mask chose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdsl.runtime.data.batch import NOT_ASKED, StreamValues
from vlmdsl.runtime.encoders import EncodedFeatures

__all__ = ["chosen_tokens", "encode_together"]


def encode_together(tower: nn.Module, values: Sequence[StreamValues], **options: object) -> list[EncodedFeatures]:
    """The features of each of several values, from as few calls of the tower as can be.

    Images of one side with as many patches kept are one batch, and so are all texts. `options` are arguments of every call.
    """
    found: dict[int, EncodedFeatures] = {}
    for places in _of_one_shape(values):
        found.update(zip(places, _encoded(partial(tower, **options), [values[place] for place in places]), strict=True))
    return [found[place] for place in range(len(values))]


def chosen_tokens(states: Tensor, targets: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """The states [b, M, W] and targets [b, M] of the places `asked` [b, M], out of [b, L, W] and [b, L].

    A place left over holds some state, which `NOT_ASKED` keeps out of every criterion, and so out of its gradient.
    """
    found = asked.flatten().clamp(min=0)
    chosen = targets.flatten().index_select(0, found).view_as(asked)
    picked = states.flatten(0, 1).index_select(0, found).view(*asked.shape, states.shape[2])
    return picked, torch.where(asked == NOT_ASKED, NOT_ASKED, chosen)


def _of_one_shape(values: Iterable[StreamValues]) -> list[list[int]]:
    """The places of values that one batch can hold; blended texts are padded no further, since that adds no token."""
    places: dict[object, list[int]] = {}
    for place, value in enumerate(values):
        kept = None if value.keep is None else value.keep.shape[1]
        blended = None if value.share is None else _texts(value).shape[1]
        places.setdefault((value.values.shape[2:], kept, blended), []).append(place)
    return list(places.values())


def _encoded(tower: Callable[..., EncodedFeatures], values: list[StreamValues]) -> list[EncodedFeatures]:
    """One call for several values, as one longer batch; the features of each in its own length."""
    if len(values) == 1:
        return [_called(tower, values[0])]
    whole = _called(tower, _concatenated(values))
    sizes = [len(part.values) for part in values]
    longest = max(_texts(part).shape[1] for part in values)
    parts = [(None,) * len(sizes) if output is None else output.split(sizes) for output in whole]
    return [
        _shortened(EncodedFeatures(*outputs), longest - _texts(part).shape[1])
        for outputs, part in zip(zip(*parts, strict=True), values, strict=True)
    ]


def _called(tower: Callable[..., EncodedFeatures], values: StreamValues) -> EncodedFeatures:
    """Only some towers know of words that are joined to images or blended with them, of patches to keep, and of noise."""
    further = {"words": values.words, "keep": values.keep, "noise": values.noise, "share": values.share}
    given = {name: value for name, value in further.items() if value is not None}
    return tower(values.values, values.mask, **given)


def _texts(values: StreamValues) -> Tensor:
    """The token ids of a stream of texts, or of those that are joined to its images; the regions of one of regions."""
    return values.values if values.words is None else values.words


def _concatenated(parts: list[StreamValues]) -> StreamValues:
    """One batch of several; shorter texts, and fewer regions, are padded, which changes no feature."""
    keep, noise, share = (_joined([getattr(part, name) for part in parts]) for name in ("keep", "noise", "share"))
    if all(part.mask is None and part.words is None for part in parts):
        return StreamValues(torch.cat([part.values for part in parts]), keep=keep, noise=noise)
    length = max(_texts(part).shape[1] for part in parts)
    texts = torch.cat([_padded(_texts(part), length) for part in parts])
    masks = [_all_real(_texts(part)) if part.mask is None else part.mask for part in parts]
    mask = torch.cat([_padded(mask, length) for mask in masks])
    if parts[0].words is None:
        return StreamValues(texts, mask)
    return StreamValues(torch.cat([part.values for part in parts]), mask, texts, keep=keep, share=share)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _all_real(texts: Tensor) -> Tensor:
    return torch.ones(texts.shape[:2], dtype=torch.bool, device=texts.device)


def _padded(values: Tensor, length: int) -> Tensor:
    """`[b, length, ...]` of `[b, L, ...]`."""
    return functional.pad(values, (0, 0) * (values.dim() - 2) + (0, length - values.shape[1]))


def _shortened(features: EncodedFeatures, added: int) -> EncodedFeatures:
    """The tokens of a stream without the padding that `_concatenated` added to its texts."""
    if features.mask is None:
        return features

    def cut(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[:, : part.shape[1] - added]

    return features._replace(tokens=cut(features.tokens), mask=cut(features.mask), states=cut(features.states))
