"""Fusion modules of plug-ins: built, and tried on a few random states before a run begins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir.modules import PluginFusionSettings
from vlmdsl.primitives.plugins.function import Implementation, described, implementation, unfit
from vlmdsl.runtime.modules.sequences import SequenceFeatures

__all__ = ["plugin_fusion"]

_TOLERANCE = 1e-4


def plugin_fusion(settings: PluginFusionSettings, states_width: int, context_width: int) -> tuple[nn.Module, int]:
    """The module of a plug-in for states of these widths, and the length of its features.

    Raises `DiagnosticError` (V0216) where it is not a module, does not give features, or where what stands in padding or in
    other samples changes them.
    """
    function = implementation(settings.by)
    try:
        network = function(states_width, context_width, **dict(settings.arguments))
        if not isinstance(network, nn.Module):
            raise unfit(function, f"returns {described(network)} instead of a module (`torch.nn.Module`)")
        width = _tried(function, network, states_width, context_width)
    except DiagnosticError:
        raise
    except Exception as error:  # third-party code: it may raise anything
        raise unfit(function, f"fails on random states: {type(error).__name__}: {error}") from error
    return network, width


@torch.no_grad()
def _tried(function: Implementation, network: nn.Module, states_width: int, context_width: int) -> int:
    """The length of the features."""
    generator = torch.Generator().manual_seed(0)
    states, context = (torch.randn(2, 3, width, generator=generator) for width in (states_width, context_width))
    mask = torch.tensor([[True, True, True], [True, True, False]])
    training = network.training
    with torch.random.fork_rng():
        network.eval()
        features = network(states, mask, context, mask)
        width = _width(function, features)
        poisoned = [values.masked_fill(~mask[:, :, None], torch.nan) for values in (states, context)]
        _compare(function, features, network(poisoned[0], mask, poisoned[1], mask), mask, "what stands in padding")
        alone = network(states[1:], mask[1:], context[1:], mask[1:])
        _compare(function, SequenceFeatures(*(part[1:] for part in _parts(features))), alone, mask[1:], "other samples")
        network(states, None, context, None)
    network.train(training)
    return width


def _width(function: Implementation, features: object) -> int:
    if not isinstance(features, SequenceFeatures):
        help = "return `vlmdsl.runtime.modules.SequenceFeatures(tokens, mask, pooled)`"
        raise unfit(function, f"builds a module that returns {described(features)}", help)
    tokens, _, pooled = _parts(features)
    if tokens.shape[:2] != (2, 3) or tokens.dim() != 3 or pooled.shape != (2, tokens.shape[2]):
        problem = f"tokens of the shape {list(tokens.shape)} and pooled features of {list(pooled.shape)}"
        help = "for 2 texts of 3 tokens return [2, 3, W] and [2, W]"
        raise unfit(function, f"builds a module that returns {problem}", help)
    return tokens.shape[2]


def _parts(features: SequenceFeatures) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and pooled features; those that are missing are empty."""
    tokens, mask, pooled, _ = features
    mask = tokens.new_ones(tokens.shape[:2]) if mask is None else mask
    return tokens, mask, tokens.new_empty(0) if pooled is None else pooled


def _compare(function: Implementation, one: SequenceFeatures, other: SequenceFeatures, mask: Tensor, what: str) -> None:
    """V0216 unless both have the same features of real tokens, and finite ones elsewhere."""
    (tokens, _, pooled), (other_tokens, _, other_pooled) = _parts(one), _parts(other)
    same = torch.allclose(tokens[mask], other_tokens[mask], atol=_TOLERANCE) and torch.allclose(
        pooled, other_pooled, atol=_TOLERANCE
    )
    if not (same and other_tokens.isfinite().all()):
        raise unfit(function, f"builds a module whose features depend on {what}", "set padding to zero before it is used")
