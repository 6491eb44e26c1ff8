"""Checks that all processes have the same sizes before anything is exchanged, which would hang or be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from vlmdsl.backends.torch.collectives import gather_numbers, gather_objects, process_count, process_index

__all__ = ["check_agreement"]


def check_agreement(features: Mapping[str, object], fault: Exception | None = None) -> None:
    """ValueError, on every process, that names the sizes where they differ; `fault` is an error in this process's features,
    which it raises itself and the others report.

    Each call compares one number per process, on the CPU; shapes are exchanged only if they differ.
    """
    if process_count() == 1:
        if fault is not None:
            raise fault
        return
    shapes = {name: _form(value) for name, value in features.items()}
    own = hashlib.sha256(repr((sorted(shapes.items()), str(fault or ""))).encode()).digest()
    numbers = gather_numbers(int.from_bytes(own[:8], "little", signed=True))
    if fault is None and len(set(numbers)) == 1:
        return
    gathered = gather_objects((shapes, "" if fault is None else str(fault)))
    if fault is not None:
        raise fault
    raise ValueError(_message([shapes for shapes, _ in gathered], [text for _, text in gathered]))


def _message(shapes: list[dict[str, str]], faults: list[str]) -> str:
    for process, text in enumerate(faults):
        if text:
            return f"process {process} received invalid features (this is process {process_index()}): {text}"
    names = dict.fromkeys(name for sizes in shapes for name in sizes)
    differing = [name for name in names if len({sizes.get(name) for sizes in shapes}) > 1]
    parts = [
        f"{name} is " + ", ".join(f"{sizes.get(name, 'missing')} on process {k}" for k, sizes in enumerate(shapes))
        for name in differing
    ]
    return f"batches must have the same size on all processes: {'; '.join(parts)}"


def _form(value: object) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, Tensor) else "no tensor"
