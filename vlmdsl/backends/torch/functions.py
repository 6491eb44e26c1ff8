"""The base of functions with a derivative of their own."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Function"]


class Function(torch.autograd.Function):
    """`torch.autograd.Function` with a cheaper `apply`.

    A function with `setup_context`, which `torch.func` needs, has its signature read and its arguments bound at every call:
    as much time as all else that a call takes. Only defaults and keywords need that, and ours have none.
    """

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """The result for these arguments, which are positional and complete."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)  # type: ignore[no-untyped-call]
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]
