"""Checks the tensors that are passed to an objective, by name and axis, before anything is traced."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from vlmdsl.backends.torch.lengths import compared_streams
from vlmdsl.diagnostics.suggest import suggestion
from vlmdsl.ir import CODES, Input, Node, Program, inputs, streams

__all__ = ["FeatureChecker"]


class FeatureChecker:
    """Checks features against the inputs of a program; messages name inputs and axes."""

    def __init__(self, program: Program, without_logits: Collection[Node] = ()) -> None:
        self._inputs = {spec.name: spec for spec in inputs(program, without_logits)}
        masks = [stream.input("mask") for stream in streams(program) if stream.tokens or stream.entering]
        self._optional = {name for name in masks if name in self._inputs and "P" in self._inputs[name].axes}
        self._optional |= {name for name, spec in self._inputs.items() if spec.axes == ("V",)}
        self._same_tokens = [
            [stream.input(output), stream.input(beside)]
            for stream in streams(program)
            for output, beside in (("tokens", "mask"), ("states", "mask"), ("embedded", "mask"), *_PREDICTED)
            if {stream.input(output), stream.input(beside)} <= self._inputs.keys()
        ]
        self._products = [
            [stream.input("predicted"), f"{stream.linear}_weight"]
            for stream in streams(program)
            if stream.encode in without_logits
        ]
        self._compared = compared_streams(program)
        self._last_sound: object = None
        """What of the last inputs that were sound was checked: those of the next step are usually alike."""

    def check(self, features: Mapping[str, object]) -> None:
        """TypeError for unknown, missing or wrongly typed inputs; ValueError for shapes that disagree."""
        tensors = [(name, value) for name, value in features.items() if isinstance(value, Tensor)]
        facts = [(name, value.shape, value.dtype, value.device) for name, value in tensors]
        if len(facts) < len(features) or facts != self._last_sound:
            self._check(features)
            self._last_sound = facts

    def _check(self, features: Mapping[str, object]) -> None:
        self._check_names(features)
        tensors: dict[str, Tensor] = {}
        for name, value in features.items():
            tensors[name] = _checked(self._inputs[name], value)
        self._check_axis("B", "samples", tensors, [name for name in tensors if "B" in self._inputs[name].axes])
        for names in self._same_tokens:
            self._check_axis(self._inputs[names[0]].axes[1], "tokens", tensors, [name for name in names if name in tensors])
        for product in self._products:
            self._check_axis("W", "numbers of a state", tensors, product)
        for pair in self._compared:
            self._check_axis("D", "features", tensors, [name for name in pair if name in tensors])
        _check_device(tensors)

    def _check_names(self, features: Mapping[str, object]) -> None:
        for name in features:
            if name not in self._inputs:
                raise TypeError(f"this objective takes no {name!r}: {suggestion(name, self._inputs, 'its inputs')}")
        missing = [name for name in self._inputs if features.get(name) is None and name not in self._optional]
        if missing:
            described = "; ".join(
                f"{name} [{', '.join(self._inputs[name].axes)}], {self._inputs[name].meaning}" for name in missing
            )
            raise TypeError(f"this objective lacks {described}")

    def _check_axis(self, axis: str, meaning: str, tensors: Mapping[str, Tensor], names: list[str]) -> None:
        sizes = {name: tensors[name].shape[self._inputs[name].axes.index(axis)] for name in names}
        if len(set(sizes.values())) > 1:
            described = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"the inputs disagree on the axis {axis} ({meaning}): {described}")


def _checked(spec: Input, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{spec.name} must be a tensor [{', '.join(spec.axes)}], got {type(value).__name__}")
    right = {
        "float": value.is_floating_point(),
        "bool": value.dtype is torch.bool,
        "int64": not value.is_floating_point() and not value.is_complex() and value.dtype is not torch.bool,
    }[spec.dtype]
    if not right:
        raise TypeError(f"{spec.name} must be {spec.dtype}, got {str(value.dtype).removeprefix('torch.')}")
    if value.dim() != len(spec.axes):
        raise ValueError(f"{spec.name} must have the axes [{', '.join(spec.axes)}], got the shape {list(value.shape)}")
    if 0 in value.shape[:1]:
        raise ValueError(f"{spec.name} holds no samples: its axis B has size 0")
    if 0 in value.shape[1:]:
        axis = spec.axes[list(value.shape).index(0)]
        raise ValueError(f"{spec.name} holds nothing: its axis {axis} has size 0")
    return value


def _check_device(tensors: Mapping[str, Tensor]) -> None:
    devices = {name: str(tensor.device) for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        described = ", ".join(f"{name} is on {device}" for name, device in devices.items())
        raise ValueError(f"the inputs are on different devices: {described}")


_PREDICTED = tuple((output, ids) for output in ("vocabulary", "predicted") for ids in CODES.values())
"""What is predicted of tokens, beside what they are."""
