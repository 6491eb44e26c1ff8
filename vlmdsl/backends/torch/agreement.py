"""Whether all processes were given the same sizes: asked before anything is exchanged, which would hang or be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor

from vlmdsl.backends.torch.collectives import gather_objects, process_count, process_index

__all__ = ["check_agreement"]


def check_agreement(features: Mapping[str, object], fault: Exception | None = None) -> None:
    """ValueError, on every process, that names the sizes where they differ; `fault` is what this process found wrong with
    its own features already, which it raises itself and the others name.

    One number of every process is compared a call, on the CPU; only where they differ are shapes sent around.
    """
    if process_count() == 1:
        if fault is not None:
            raise fault
        return
    shapes = {name: _form(value) for name, value in features.items()}
    own = hashlib.sha256(repr((sorted(shapes.items()), str(fault or ""))).encode()).digest()
    number = torch.tensor([int.from_bytes(own[:8], "little", signed=True)])
    everyone = torch.empty(process_count(), dtype=torch.int64)
    dist.all_gather_into_tensor(everyone, number, group=_cpu_group(dist.group.WORLD))
    if fault is None and bool((everyone == number).all()):
        return
    told = gather_objects((shapes, "" if fault is None else str(fault)))
    if fault is not None:
        raise fault
    raise ValueError(_message([shapes for shapes, _ in told], [text for _, text in told]))


def _message(shapes: list[dict[str, str]], faults: list[str]) -> str:
    for process, text in enumerate(faults):
        if text:
            return f"process {process} was given features that do not fit (this is process {process_index()}): {text}"
    names = dict.fromkeys(name for given in shapes for name in given)
    differing = [name for name in names if len({given.get(name) for given in shapes}) > 1]
    parts = [
        f"{name} is " + ", ".join(f"{given.get(name, 'missing')} on process {k}" for k, given in enumerate(shapes))
        for name in differing
    ]
    return f"the processes were given batches of different sizes, which must be equal: {'; '.join(parts)}"


def _form(value: object) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, Tensor) else "no tensor"


@cache
def _cpu_group(world: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """All processes, by a group that sends what is on the CPU: nobody waits for a device."""
    assert world is not None
    return world if torch.device("cpu") in world._device_types else dist.new_group(backend="gloo")
