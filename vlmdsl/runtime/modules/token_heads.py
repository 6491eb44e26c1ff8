"""Heads on tokens: a small network of each token by itself."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlmdsl.ir.modules import TokenHeadSettings

__all__ = ["TokenHead"]


class TokenHead(nn.Module):
    """Tokens `[b, L, D]` to `[b, L, out]`: linear maps with a GELU between them, of each token alone.

    Maps start as torch's own do, the last one's weight smaller by `settings.start`; its bias starts at 0. Padding, which may
    hold anything, is zeroed before it and after it.
    """

    def __init__(self, settings: TokenHeadSettings, entering: int) -> None:
        super().__init__()
        widths = (entering, *[settings.hidden or entering] * (settings.layers - 1), settings.out or entering)
        maps = [
            nn.Linear(inputs, outputs, bias=settings.bias or layer < settings.layers)
            for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1)
        ]
        with torch.no_grad():
            maps[-1].weight.mul_(settings.start)
            if maps[-1].bias is not None:
                maps[-1].bias.zero_()
        layers: list[nn.Module] = [maps[0]]
        for following in maps[1:]:
            layers += [nn.GELU(), following]
        self.layers = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The numbers of each token, zeros where `mask [b, L]` has none."""
        if mask is None:
            numbers: Tensor = self.layers(tokens)
            return numbers
        return torch.where(mask[:, :, None], self.layers(torch.where(mask[:, :, None], tokens, 0.0)), 0.0)
