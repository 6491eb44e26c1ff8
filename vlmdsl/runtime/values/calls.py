"""Calls of towers: a value with its ports, and one call for several values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from torch import Tensor

from vlmdsl.runtime.values.phrases import ConceptBatch
from vlmdsl.runtime.values.text import TextBatch
from vlmdsl.runtime.values.tuples import Value, cat, count, length, map_tensors, shorten, split

__all__ = ["Share", "TowerInput", "call_together"]

F = TypeVar("F", bound=Value)


class Share(NamedTuple):
    """The share of the image in an image blended with a text: `shares [b]`, float."""

    shares: Tensor


@dataclass(frozen=True)
class TowerInput:
    """What a tower encodes: an image, a text or regions, and by the tower's words what comes with it: the `words` of a text
    that is joined or blended with an image (`TextBatch`), the `share` of the image (`Share`), the patches to `keep`
    (`KeptPatches`), or to `replace` (`ReplacedPatches`), `noise` (`Noise`), the `context` of a text, its `prefix`
    (`Prefix`), and of which samples all tokens are predicted in `parallel` (`Parallel`)."""

    value: Value
    ports: Mapping[str, Value] = field(default_factory=dict)

    def call(self, tower: Callable[..., F]) -> F:
        """The features: `tower(pixels or ids or features, mask, words=, keep=, noise=, share=)`, of these what there is.

        Several texts per sample are encoded as so many samples; the pooled features of each are the tokens of its sample.
        """
        if isinstance(self.value, ConceptBatch):
            return self._each(self.value, tower)
        arguments = list(self.value)
        keywords = {name: value[0] for name, value in self.ports.items()}
        words = self.ports.get("words")
        if isinstance(words, TextBatch):
            arguments.append(words.mask)
        return tower(*arguments, **keywords)

    def _each(self, texts: ConceptBatch, tower: Callable[..., F]) -> F:
        encoded = tower(texts.ids.flatten(0, 1), texts.tokens.flatten(0, 1))
        pooled: Tensor = encoded.pooled  # type: ignore[attr-defined]  # a tower of texts yields it
        none = dict.fromkeys(encoded._fields)  # type: ignore[attr-defined]  # of a named tuple
        return type(encoded)(**{**none, "tokens": pooled.unflatten(0, texts.real.shape), "mask": texts.real})

    def __len__(self) -> int:
        """How many samples it holds."""
        return count(self.value)

    def map(self, function: Callable[[Tensor], Tensor]) -> TowerInput:
        """Apply a function to each tensor: of the value, then of its ports."""
        ports = {name: map_tensors(function, value) for name, value in self.ports.items()}
        return TowerInput(map_tensors(function, self.value), ports)

    @property
    def text_length(self) -> int | None:
        """How long its texts, or regions, are: of those that are padded to be one batch with others."""
        return length(self.ports.get("words", self.value))

    @property
    def shape(self) -> object:
        """The key of inputs that can be one batch: the side of images, how many texts there are per sample, the number of
        patches that were kept or that a text is given. Shorter texts are padded, but for blended and parallel ones, of which
        each place counts."""
        first = self.value[0]
        assert first is not None
        padded = self.text_length if self.ports.keys() & {"share", "parallel"} else None
        sizes = first.shape[1 if isinstance(self.value, ConceptBatch) else 2 :]
        return sizes, self._tokens("keep"), self._tokens("context"), padded, frozenset(self.ports)

    def _tokens(self, port: str) -> int | None:
        """How many tokens per sample come in a port."""
        tokens = self.ports[port][0] if port in self.ports else None
        return None if tokens is None else tokens.shape[1]


def call_together(tower: Callable[..., F], inputs: Sequence[TowerInput]) -> list[F]:
    """The features of each input, from one call of the tower for all inputs of one `shape`."""
    groups: dict[object, list[int]] = {}
    for place, entry in enumerate(inputs):
        groups.setdefault(entry.shape, []).append(place)
    features: dict[int, F] = {}
    for places in groups.values():
        features.update(zip(places, _one_call(tower, [inputs[place] for place in places]), strict=True))
    return [features[place] for place in range(len(inputs))]


def _one_call(tower: Callable[..., F], inputs: list[TowerInput]) -> list[F]:
    """One longer batch, and its features in parts, each without the padding that the longest text gave it."""
    if len(inputs) == 1:
        return [inputs[0].call(tower)]
    ports = {name: cat([entry.ports[name] for entry in inputs]) for name in inputs[0].ports}
    whole = TowerInput(cat([entry.value for entry in inputs]), ports)
    parts = split(whole.call(tower), [count(entry.value) for entry in inputs])
    longest = whole.text_length or 0
    return [
        shorten(part, (length(part) or 0) - longest + (entry.text_length or 0))
        for part, entry in zip(parts, inputs, strict=True)
    ]
