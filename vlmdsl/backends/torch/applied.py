"""The inputs of modules that are applied to features, from the values of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from vlmdsl.ir.operations.encoding import TOKENS
from vlmdsl.ir.operations.modules import APPLY, CONTEXT, EMBEDDED
from vlmdsl.planning import applied_of

__all__ = [
    "INPUTS", "decoder_input", "fusion_input", "head_input", "patches_input", "pooler_input", "states_input",
    "token_head_input",
]  # fmt: skip

_Environment: TypeAlias = Mapping[Any, Any]


def fusion_input(node: Any, environment: _Environment) -> tuple[Tensor | None, ...]:
    """The inputs of an `apply` node of fusion: the states of a text, or its embedded tokens, with their mask, and those of
    its image, if any."""
    return tuple(part for parent in node.inputs for part in states_input(parent, environment))


def decoder_input(node: Any, environment: _Environment) -> tuple[Tensor]:
    """The input of an `apply` node of a decoder: the states of the visible patches."""
    states, _ = states_input(node.inputs[0], environment)
    return (states,)


def patches_input(node: Any, environment: _Environment) -> tuple[Tensor]:
    """The input of an `apply` node of a linear map: the states of an image."""
    states, _ = states_input(node.inputs[0], environment)
    return (states,)


def token_head_input(node: Any, environment: _Environment) -> tuple[Tensor, Tensor | None]:
    """The input of an `apply` node of a head on tokens: tokens with their mask."""
    return states_input(node.inputs[0], environment)


def head_input(node: Any, environment: _Environment) -> tuple[Tensor]:
    """The input of an `apply` node of a head: vectors."""
    below = node.inputs[0]
    if below.operation is APPLY:  # another head
        return (environment[applied_of(below)],)
    features: Tensor = environment[below] if below in environment else environment[applied_of(below.inputs[0])].pooled
    return (features,)


def pooler_input(node: Any, environment: _Environment) -> tuple[Tensor, Tensor | None]:
    """The inputs of an `apply` node of a pooler: states of an image, or the tokens of another pooler, with their mask."""
    return states_input(node.inputs[0], environment)


INPUTS: Mapping[str, Callable[[Any, _Environment], tuple[Any, ...]]] = {
    "fusion": fusion_input,
    "decoder": decoder_input,
    "linear": patches_input,
    "head": head_input,
    "token_head": token_head_input,
    "pooler": pooler_input,
}
"""Per family of modules that are applied to features: the arguments of a call for one `apply` node."""


def states_input(node: Any, environment: _Environment) -> tuple[Tensor, Tensor | None]:
    """The vectors of a node of tokens that a module takes, with their mask: states of a tower, or the tokens of a module."""
    if node in environment:  # computed: those of picked samples
        return environment[node].values, environment[node].mask
    output = environment[applied_of(node if node.operation is APPLY else node.inputs[0])]
    if node.operation is APPLY:
        return output.tokens, output.mask
    if node.operation is CONTEXT:
        return output.context, None
    if node.operation is EMBEDDED:
        return output.embedded, output.mask
    return output.tokens if node.operation is TOKENS else output.states, output.mask
