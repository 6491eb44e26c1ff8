"""Small stand-in modules for objectives that apply modules to features."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vlmdsl.ir import Head, Module
from vlmdsl.ir.modules import TokenHeadSettings

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective

__all__ = ["FEATURES", "PATCH_SIDE", "TOKENS", "WORDS", "example_modules"]

TOKENS, FEATURES, WORDS = 4, 6, 7
"""Sizes of the examples: tokens per text, length of features and states, vocabulary entries."""
PATCH_SIDE = 2
"""The side of the patches that a decoder predicts, in pixels."""


def example_modules(
    objective: Objective, *, seed: int = 0, tokens: int = TOKENS, padding: float = 0.0
) -> dict[str, nn.Module]:
    """A float64 stand-in for each module that an objective applies, by name, as `modules=` of a call takes them.

    Towers are among them where images or texts are picked. They depend on the same inputs as real modules (text, image, both
    masks), treat each sample separately, are smooth, and
    have random weights. They fit the inputs that `example_features` returns.

    Args:
        objective: the objective; `objective.applied` lists the names.
        seed: seed of the weights.
        tokens: number of tokens per text, as for `example_features`.
        padding: a finite number that the modules return for padding tokens; an objective must not depend on it.

    Example:
        >>> import vlmdsl
        >>> from vlmdsl.testing import example_features, example_modules
        >>> objective = vlmdsl.compile("mlm(mask(text, random(15%)) | image)", compiled=False)
        >>> modules = example_modules(objective)
        >>> sorted(modules)
        ['fusion', 'vocabulary']
        >>> objective(modules=modules, **example_features(objective)).loss.shape
        torch.Size([])
    """
    uses = {call.use.name: call.use.module for call in objective.schedule.calls}
    return {name: _module(uses[name], seed, tokens + 1, padding) for name in objective.applied}


def _module(module: Module, seed: int, patches: int, padding: float) -> nn.Module:
    if module.family in ("tower", "fusion"):
        kind = _Tower if module.family == "tower" else _Fusion
        return kind(FEATURES, seed, padding)
    if module.family == "decoder":
        states = getattr(module.settings, "output", "") == "states"
        return _StatesDecoder(FEATURES, patches, seed) if states else _Decoder(FEATURES, patches, seed)
    if isinstance(module.settings, TokenHeadSettings):
        return _TokenHead(FEATURES, module.settings.out or FEATURES, seed, padding)
    if module.family == "pooler":
        return _Pooler(FEATURES, seed)
    if isinstance(module.settings, Head):
        return _linear(FEATURES, module.settings.widths(FEATURES)[-1], seed)
    return _Vocabulary(FEATURES, WORDS, seed)


class _Fused(NamedTuple):
    """Output of the fusion: `pooled [n, W]`, `tokens [n, L, W]`, `mask [n, L]`, `context [n, K, W]`."""

    pooled: Tensor
    tokens: Tensor
    mask: Tensor | None
    context: Tensor | None = None


class _Encoded(NamedTuple):
    """Output of a tower: `pooled [n, W]`, `tokens`, `states` and `embedded [n, L, W]`, `mask [n, L]`."""

    pooled: Tensor
    tokens: Tensor
    states: Tensor
    embedded: Tensor
    mask: Tensor | None


class _Tower(nn.Module):
    """Of texts each id is a token, of images each column of pixels is a patch."""

    def __init__(self, width: int, seed: int, padding: float) -> None:
        super().__init__()
        self.word, self.patch = _linear(1, width, seed), _linear(3 * PATCH_SIDE**2, width, seed + 1)
        self.padding = padding

    def forward(self, values: Tensor, mask: Tensor | None = None) -> _Encoded:
        if values.dim() == 2:
            tokens = torch.tanh(self.word(values[:, :, None].to(self.word.weight.dtype)))
        else:
            columns = values.reshape(*values.shape[:3], -1, PATCH_SIDE).permute(0, 3, 1, 2, 4)
            tokens = torch.tanh(self.patch(columns.flatten(2)))
        tokens = tokens if mask is None else tokens.where(mask[:, :, None], self.padding)
        return _Encoded(_mean(tokens, mask), tokens, tokens, tokens, mask)


class _Fusion(nn.Module):
    """Each token sees itself, the mean of the text and that of any context; the pooled features are the mean."""

    def __init__(self, width: int, seed: int, padding: float) -> None:
        super().__init__()
        self.own, self.text, self.context = (_linear(width, width, seed + offset) for offset in range(3))
        self.padding = padding

    def forward(
        self, states: Tensor, mask: Tensor | None, context: Tensor | None = None, context_mask: Tensor | None = None
    ) -> _Fused:
        around, images = self.text(_mean(states, mask)), None
        if context is not None:
            around = around + self.context(_mean(context, context_mask))
            images = torch.tanh(self.context(_without_padding(context, context_mask)) + around[:, None])
        tokens = torch.tanh(self.own(_without_padding(states, mask)) + around[:, None])
        pooled = _mean(tokens, mask)
        return _Fused(pooled, tokens if mask is None else tokens.where(mask[:, :, None], self.padding), mask, images)


class _TokenHead(nn.Module):
    """A linear map of each token."""

    def __init__(self, width: int, out: int, seed: int, padding: float) -> None:
        super().__init__()
        self.linear, self.padding = _linear(width, out, seed), padding

    def forward(self, tokens: Tensor, mask: Tensor | None) -> _Fused:
        numbers = self.linear(_without_padding(tokens, mask))
        return _Fused(_mean(numbers, mask), numbers if mask is None else numbers.where(mask[:, :, None], self.padding), mask)


class _Pooler(nn.Module):
    """Three features of an image, each another map of the mean of its states; the first one is pooled, too."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.linear = _linear(width, 3 * width, seed)

    def forward(self, states: Tensor, mask: Tensor | None) -> _Fused:
        tokens = torch.tanh(self.linear(_mean(states, mask))).view(len(states), 3, -1)
        return _Fused(tokens[:, 0], tokens, None)


class _Decoder(nn.Module):
    """Each patch is predicted from the mean of the states, differently from the others."""

    def __init__(self, width: int, patches: int, seed: int, numbers: int = 3 * PATCH_SIDE**2) -> None:
        super().__init__()
        self.patches, self.linear = patches, _linear(width, numbers * patches, seed)

    def forward(self, states: Tensor) -> Tensor:
        patches: Tensor = torch.tanh(self.linear(states.mean(dim=1)))
        return patches.view(len(states), self.patches, -1)


class _StatesDecoder(nn.Module):
    """The same for states, as many numbers as the features have."""

    def __init__(self, width: int, patches: int, seed: int) -> None:
        super().__init__()
        self.states = _Decoder(width, patches, seed, width)

    def forward(self, states: Tensor) -> _Fused:
        tokens = self.states(states)
        return _Fused(tokens[:, 0], tokens, None)


class _Vocabulary(nn.Module):
    """Returns logits, or with `product=False` the states, which the loss multiplies by `weight`."""

    def __init__(self, width: int, words: int, seed: int) -> None:
        super().__init__()
        linear = _linear(width, words, seed)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, states: Tensor, *, product: bool = True) -> Tensor:
        return nn.functional.linear(states, self.weight, self.bias) if product else states


def _without_padding(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states.where(mask[:, :, None], 0.0)


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return states.mean(dim=1)
    return _without_padding(states, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def _linear(entering: int, leaving: int, seed: int) -> nn.Linear:
    linear = nn.Linear(entering, leaving, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / entering**0.5)
    return linear
