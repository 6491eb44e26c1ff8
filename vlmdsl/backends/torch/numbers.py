"""Numbers and buffers of modules: names, precision, devices, and tensors that outlive a gradient mode."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

__all__ = ["free_attribute", "keep_precision", "lasting", "on_device", "outside_inference_mode", "start_tensor"]

_HALF = (torch.float16, torch.bfloat16)


def free_attribute(module: nn.Module, name: str) -> str:
    """The name, with underscores appended while the module already has it."""
    attribute = name.replace(".", "_")
    while hasattr(module, attribute):
        attribute += "_"
    return attribute


def start_tensor(start: float) -> Tensor:
    """A number of the default dtype, float32 at least: 0-d."""
    return torch.tensor(start, dtype=torch.promote_types(torch.get_default_dtype(), torch.float32))


def keep_precision(before: Tensor, after: Tensor, start: float) -> Tensor | None:
    """What a number that starts at `start` is to be where a module changed its type or place from `before` to `after`.

    Float32 where it would be rounded to half of that; in float64 the exact start where it has not moved from it; None where
    `after` is right.
    """
    if after.dtype in _HALF:
        return before.to(after.device, torch.float32)
    if after.dtype is not torch.float64 or before.dtype is torch.float64 or before.is_meta or after.is_meta:
        return None
    rounded = torch.full_like(before, start)
    return torch.full_like(after, start) if torch.equal(before, rounded) else None


def lasting(value: Tensor) -> Tensor:
    """The same numbers in a tensor that later steps may use whatever mode this one ran in: one made in inference mode is
    refused where gradients are recorded."""
    if not value.is_inference():
        return value.detach()
    with torch.inference_mode(False):
        return value.clone()


def outside_inference_mode() -> AbstractContextManager[object]:
    """For tensors that are made now and used later: not as inference tensors, whatever mode this is."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def on_device(value: Tensor | float, device: torch.device) -> Tensor:
    """The tensor, or the number as one, on that device."""
    if isinstance(value, Tensor) and value.device == device:
        return value
    return torch.as_tensor(value, device=device)
