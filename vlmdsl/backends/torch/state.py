"""What outlives the step, as buffers: read before a call, replaced after one in training mode, saved with the module."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmdsl.backends.torch.numbers import free_attribute, keep_precision, lasting, outside_inference_mode, start_tensor
from vlmdsl.backends.torch.values import Memory
from vlmdsl.ir import Node, Program, states, streams, walk
from vlmdsl.ir.operations.encoding import POOLED
from vlmdsl.ir.operations.state import STATE
from vlmdsl.types import LabelsType, MemoryType

__all__ = ["State", "StateValue"]

StateValue: TypeAlias = Tensor | Memory
"""A number is a 0-d tensor."""


class State(nn.Module):
    """The state of one objective, equal on all processes.

    A number is the buffer of its name; a memory of Q vectors is two, `NAME` [Q, D] and `NAME_written` (0-d, int64), as one
    of labels is, `NAME` [Q] (int64). D is that of the features: until `allocate` says what that is, or a checkpoint is
    loaded, a memory's D is 0.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._attributes: dict[str, str] = {}
        self._counters: dict[str, str] = {}
        self._starts: dict[str, float] = {}
        self._random: set[str] = set()
        self._sources: dict[str, str] = _sources(program)
        with outside_inference_mode():
            for node in states(program):
                self._register(node)

    @property
    def changes(self) -> bool:
        """Whether there is anything that a training step moves on."""
        return bool(self._attributes)

    def read(self) -> dict[str, StateValue]:
        """Everything by name, as it is before the step."""
        return {name: self._value(name) for name in self._attributes}

    def filled(self) -> dict[str, Tensor]:
        """How many slots of each memory are written: 0-d, by its name."""
        held = ((name, self._value(name)) for name in self._counters)
        return {name: value.filled.sum() for name, value in held if isinstance(value, Memory)}

    def write(self, after: Mapping[str, StateValue]) -> None:
        """Take over the values after the step, as new tensors: a graph may still need the old ones."""
        for name, value in after.items():
            attribute = self._attributes[name]
            if isinstance(value, Memory):
                setattr(self, self._counters[name], lasting(value.written))
                value = value.values
            setattr(self, attribute, lasting(value.to(getattr(self, attribute).dtype)))

    def allocate(self, dimensions: Mapping[str, int]) -> None:
        """Give memories that have no D yet the one of the features that enter them; `dimensions` by stream.

        ValueError names a memory that holds vectors of another D.
        """
        for name, source in self._sources.items():
            held = self.get_buffer(self._attributes[name]).shape[1]
            if held == 0:
                self._fill(name, dimensions[source])
            elif held != dimensions[source]:
                raise ValueError(
                    f"the queue {name} holds vectors of {held} features, but {source} has {dimensions[source]}: "
                    f"an objective with a queue is for one D"
                )

    def _value(self, name: str) -> StateValue:
        value = self.get_buffer(self._attributes[name])
        return Memory(value, self.get_buffer(self._counters[name])) if name in self._counters else value

    def _register(self, node: Node) -> None:
        name = node.string("name")
        attribute = self._attributes[name] = free_attribute(self, name)
        if node.operation is STATE:
            self._starts[name] = node.number("initial")
            self.register_buffer(attribute, start_tensor(self._starts[name]))
            return
        size = int(node.number("size"))
        of_labels = isinstance(node.type, LabelsType)
        self.register_buffer(attribute, torch.zeros(size, dtype=torch.int64) if of_labels else torch.zeros(size, 0))
        counter = self._counters[name] = free_attribute(self, f"{name}_written")
        random = node.string("start") == "random"
        self.register_buffer(counter, torch.tensor(size if random else 0))
        if random:
            self._random.add(name)

    def _fill(self, name: str, dimension: int) -> None:
        attribute = self._attributes[name]
        old = self.get_buffer(attribute)
        size = old.shape[0]
        with outside_inference_mode():
            start = _directions(size, dimension, name) if name in self._random else torch.zeros(size, dimension)
            setattr(self, attribute, start.to(old))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> State:
        """As of any module, but numbers are float32 at least, and exact in float64 before the first step."""
        before = {name: self.get_buffer(self._attributes[name]) for name in self._starts}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            kept = keep_precision(old, self.get_buffer(self._attributes[name]), self._starts[name])
            if kept is not None:
                setattr(self, self._attributes[name], kept)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As of any module; a memory without a D takes the checkpoint's, and one of another size or D is named."""
        given = dict(state_dict)
        for name in self._counters:
            attribute = self._attributes[name]
            old, saved = self.get_buffer(attribute), given.get(prefix + attribute)
            if not isinstance(saved, Tensor) or saved.shape == old.shape:
                continue
            if old.shape[1:] == (0,) and saved.shape[:1] == old.shape[:1]:
                with outside_inference_mode():
                    setattr(self, attribute, old.new_zeros(saved.shape))
            else:
                error_msgs.append(
                    f"the queue {name} holds {_content(saved)} in the checkpoint, and {_content(old)} in this objective"
                )
                given[prefix + attribute] = old
        super()._load_from_state_dict(given, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def _content(values: Tensor) -> str:
    """What is in a queue, in words; one that was never fed has no length of vectors yet."""
    if values.dim() < 2:
        return f"{values.shape[0]} labels"
    return f"{values.shape[0]} vectors" + (f" of {values.shape[1]} features" if values.shape[1] else "")


def _directions(count: int, dimension: int, name: str) -> Tensor:
    """Random unit vectors, the same on every process."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return F.normalize(torch.randn(count, dimension, generator=generator), dim=-1)


# What `torch.compiler.assume_constant_result` does, without its import of the whole compiler, which eager users do without:
# to the graph of somebody who compiles around an objective these are constants, since a generator would break it.
_directions._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _sources(program: Program) -> dict[str, str]:
    """For each memory of vectors the input of the objective whose features enter it first, which tells their D."""
    names = {stream.encode.index: stream.name for stream in streams(program)}
    return {
        update.state.string("name"): next(
            names[node.inputs[0].index] for node in walk([update.node]) if node.operation is POOLED
        )
        for update in program.updates
        if isinstance(update.state.type, MemoryType)
    }
