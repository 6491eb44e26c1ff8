"""A device that is not there: its tensors lie on the CPU, and an operation on tensors of both raises, as on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["ANOTHER_DEVICE", "DeviceError", "another_device"]

ANOTHER_DEVICE = torch.device("meta")
"""Its name: the one device besides the CPU whose gradients torch computes without a driver."""
_MOVES = frozenset({"_to_copy", "copy_", "to"})
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
"""What a GPU indexes by indices of the CPU, too."""
_FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray)


class DeviceError(Exception):
    """An operation has tensors of two devices, or draws with a generator of another one."""


class _There(Tensor):
    """A tensor of the other device; `held` are its numbers, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _There:
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=ANOTHER_DEVICE, **form)  # type: ignore[attr-defined]

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation on what its tensors hold; its result is on their device, or on the one that it names. An operator of this
    package is the operations of its own code."""
    if operation.namespace == "vlmdsl":
        with _Operations():
            return OPDEFS[operation._schema.name]._init_fn(*args, **kwargs)
    leaves = tree_leaves((args, dict(kwargs)))
    there = [leaf for leaf in leaves if isinstance(leaf, _There)]
    here = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, _There)]
    name, device = operation.overloadpacket.__name__, kwargs.get("device")
    result_is_there = bool(there) if device is None else torch.device(device) == ANOTHER_DEVICE
    if there and name not in _MOVES:
        _check(operation, there, [tensor for tensor in here if tensor.dim()], indexed=args[0])
    if result_is_there and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise DeviceError(f"{operation} draws with a generator of the CPU")
    if any(tensor.device == ANOTHER_DEVICE for tensor in here):
        raise AssertionError(f"{operation} has a tensor of which nothing is held")
    moved = kwargs if device is None else {**kwargs, "device": "cpu"}
    result = operation(*tree_map(_held, args), **tree_map(_held, dict(moved)))
    if name == "_local_scalar_dense":
        return result
    same = {id(_held(tensor)): tensor for tensor in there}  # of operations in place

    def placed(value: object) -> object:
        if not isinstance(value, Tensor) or not result_is_there:
            return value
        return same[id(value)] if id(value) in same else _There(value)

    return tree_map(placed, result)


def _check(operation: Any, there: Sequence[Tensor], here: Sequence[Tensor], indexed: object) -> None:
    if here and not (operation.overloadpacket.__name__ in _INDEXING and isinstance(indexed, _There)):
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (there, here)]
        raise DeviceError(f"{operation}: tensors of the device {shapes[0]}, of the CPU {shapes[1]}")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _There) else value


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What torch does not hand to a dispatch mode: tensors made of numbers, and lists made of tensors."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], _There):
            return args[0].detach().cpu().tolist()
        if func is Tensor.new_tensor and isinstance(args[0], _There):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **options}).to(ANOTHER_DEVICE)
        if func in _FROM_NUMBERS and options.get("device") is not None:
            device = options.pop("device")
            return func(*args, **options).to(device)
        return func(*args, **options)


@contextmanager
def another_device() -> Iterator[torch.device]:
    """Inside, the device can be used like any other. As on a GPU, its tensors are not numpy arrays."""
    with _Operations(), _Functions():
        yield ANOTHER_DEVICE
