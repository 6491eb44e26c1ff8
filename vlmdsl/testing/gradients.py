"""Values together with gradients: a lowering is correct only if both are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["assert_same_gradients", "check_gradients", "value_and_gradients"]


def value_and_gradients(
    function: Callable[..., Tensor], arguments: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scalar `function(**arguments)` and its gradient for every floating-point argument; 0 for one that is not used."""
    import torch

    leaves = {name: value.detach().clone().requires_grad_(value.is_floating_point()) for name, value in arguments.items()}
    value = function(**leaves)
    differentiated = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    derivatives = torch.autograd.grad(value, list(differentiated.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(differentiated.items(), derivatives, strict=True)
    }
    return value.detach(), gradients


def assert_same_gradients(
    function: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    arguments: Mapping[str, Tensor],
    *,
    tolerance: float = 1e-10,
) -> None:
    """AssertionError, naming what differs, unless both functions have the same value and the same gradients.

    `tolerance` is relative to the largest entry of what is compared, and absolute below 1.
    """
    value, gradients = value_and_gradients(function, arguments)
    expected, expected_gradients = value_and_gradients(reference, arguments)
    _assert_close("the value", value, expected, tolerance)
    for name, gradient in gradients.items():
        _assert_close(f"the gradient of {name}", gradient, expected_gradients[name], tolerance)


def check_gradients(function: Callable[..., Tensor], arguments: Mapping[str, Tensor]) -> None:
    """AssertionError unless the gradients agree with finite differences; arguments are taken in float64."""
    import torch

    names = [name for name, value in arguments.items() if value.is_floating_point()]
    fixed = {name: value for name, value in arguments.items() if name not in names}
    leaves = [arguments[name].detach().double().requires_grad_() for name in names]

    def of_tensors(*tensors: Tensor) -> Tensor:
        return function(**dict(zip(names, tensors, strict=True)), **fixed)

    assert torch.autograd.gradcheck(of_tensors, leaves)


def _assert_close(what: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = (actual - expected).abs().max().item()
    allowed = tolerance * max(1.0, expected.abs().max().item())
    assert difference <= allowed, f"{what} differs by {difference:.3e}, more than {allowed:.3e}"
