"""State across steps, as buffers: read before a call, replaced after one in training mode, saved with the module."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmdsl.backends.torch.numbers import free_attribute, keep_precision, lasting, outside_inference_mode, start_tensor
from vlmdsl.backends.torch.values import Memory
from vlmdsl.ir import Node, Program, sample_index, states, streams, walk
from vlmdsl.ir.operations.encoding import POOLED
from vlmdsl.ir.operations.state import STATE
from vlmdsl.types import LabelsType, MemoryType, PerSampleType, ScalarType, VectorType

__all__ = ["State", "StateValue"]

StateValue: TypeAlias = Tensor | Memory
"""A number is a 0-d tensor."""


class State(nn.Module):
    """The state of one objective, or of several that share what they call alike; equal on all processes.

    A number is the buffer of its name, and a vector, [D]; a memory of Q vectors is two, `NAME` [Q, D] and `NAME_written`
    (0-d, int64), as one of labels is, `NAME` [Q] (int64). D is that of the features: it is 0 until `allocate` is called or a
    checkpoint is loaded. Numbers of samples are a buffer [N], NaN where a sample has none yet; until `allocate_samples` says
    what N is, or a checkpoint is loaded, it is 0.
    """

    def __init__(self, *programs: Program) -> None:
        super().__init__()
        self._attributes: dict[str, str] = {}
        self._counters: dict[str, str] = {}
        self._starts: dict[str, float] = {}
        self._random: set[str] = set()
        self._tables: list[str] = []
        self._index: str | None = None
        self._sources: dict[str, str] = {}
        for program in programs:
            index = sample_index(program)
            self._index = self._index if index is None else index.string("name")
            self._sources = _sources(program) | self._sources
            with outside_inference_mode():
                for node in states(program):
                    if node.string("name") not in self._attributes:
                        self._register(node)

    @property
    def changes(self) -> bool:
        """Whether a training step updates anything."""
        return bool(self._attributes)

    def read(self) -> dict[str, StateValue]:
        """All states by name, with their values before the step."""
        return {name: self._value(name) for name in self._attributes}

    def filled(self) -> dict[str, Tensor]:
        """How many slots of each memory are written: 0-d, by its name."""
        held = ((name, self._value(name)) for name in self._counters)
        return {name: value.filled.sum() for name, value in held if isinstance(value, Memory)}

    def write(self, after: Mapping[str, StateValue]) -> None:
        """Set the values after the step, as new tensors: a graph may still need the old ones."""
        for name, value in after.items():
            attribute = self._attributes[name]
            if isinstance(value, Memory):
                setattr(self, self._counters[name], lasting(value.written))
                value = value.values
            setattr(self, attribute, lasting(value.to(getattr(self, attribute).dtype)))

    def allocate(self, dimensions: Mapping[str, int]) -> None:
        """Give memories and vectors that have no D yet the one of the features that enter them; `dimensions` by stream.

        ValueError names one that holds vectors of another D.
        """
        for name, source in self._sources.items():
            if source not in dimensions:
                continue  # it is of another objective
            held = self.get_buffer(self._attributes[name]).shape[-1]
            if held == 0:
                self._fill(name, dimensions[source])
            elif held != dimensions[source]:
                raise ValueError(
                    f"{self._said(name)} holds vectors of {held} features, but {source} has {dimensions[source]}: "
                    f"an objective with {'a mean of features' if name in self._starts else 'a queue'} is for one D"
                )

    @property
    def per_sample(self) -> bool:
        """Whether it holds numbers per sample of the data set."""
        return bool(self._tables)

    @property
    def tables(self) -> list[Tensor]:
        """The buffers of numbers per sample, [N] each."""
        return [self.get_buffer(self._attributes[name]) for name in self._tables]

    def allocate_samples(self, count: int) -> None:
        """Allocate the numbers of the `count` samples of the data set; ValueError if there are those of another number of
        samples."""
        for name in self._tables:
            held = self.get_buffer(self._attributes[name]).shape[0]
            if held == 0:
                self._fill(name, count)
            elif held != count:
                raise ValueError(
                    f"{self._said(name)} is of {held:,} samples, not of {count:,}: it belongs to another data set"
                )

    def check_index(self, features: Mapping[str, object]) -> None:
        """ValueError unless there are numbers for the samples of a batch; positions are checked on the CPU only."""
        index = features.get(self._index or "")
        if not isinstance(index, Tensor):
            return
        held = len(self.tables[0])
        if held == 0:
            raise ValueError(
                "this objective keeps a number per sample of the data set: say how many samples there are, "
                "`vlmdsl.compile(..., samples=N)`"
            )
        if index.device.type == "cpu":
            lowest, highest = (int(end) for end in index.aminmax())
            if lowest < 0 or highest >= held:
                wrong = lowest if lowest < 0 else highest
                raise ValueError(f"{self._index} holds {wrong}, but the data set has the samples 0 to {held - 1:,}")

    def _said(self, name: str) -> str:
        if name in self._tables:
            return f"the table {name}"
        return f"the {'mean' if name in self._starts else 'queue'} {name}"

    def _content(self, name: str, values: Tensor) -> str:
        """The contents of a state, in words; an unused one has no feature dimension yet."""
        if name in self._tables:
            return f"numbers of {values.numel():,} samples"
        if name in self._starts:
            return f"a vector of {values.shape[-1]} features" if values.dim() else "a number"
        if values.dim() < 2:
            return f"{values.shape[0]} labels"
        return f"{values.shape[0]} vectors" + (f" of {values.shape[1]} features" if values.shape[1] else "")

    def _value(self, name: str) -> StateValue:
        value = self.get_buffer(self._attributes[name])
        return Memory(value, self.get_buffer(self._counters[name])) if name in self._counters else value

    def _register(self, node: Node) -> None:
        name = node.string("name")
        attribute = self._attributes[name] = free_attribute(self, name)
        if node.operation is STATE:
            self._starts[name] = math.nan if node.attribute("initial") is None else node.number("initial")
            start = start_tensor(self._starts[name])
            self.register_buffer(attribute, start if isinstance(node.type, ScalarType) else start.expand(0).clone())
            self._tables += [name] * isinstance(node.type, PerSampleType)
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
            if name in self._starts:
                setattr(self, attribute, old.new_full((dimension,), self._starts[name]))
                return
            start = _directions(size, dimension, name) if name in self._random else torch.zeros(size, dimension)
            setattr(self, attribute, start.to(old))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> State:
        """As in any module, but numbers are float32 at least, and exact in float64 before the first step."""
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
        """As in any module; a state without D takes the checkpoint's, and one of another size or D is an error that names
        it."""
        copied = dict(state_dict)
        for name in dict.fromkeys([*self._counters, *self._sources, *self._tables]):
            attribute = self._attributes[name]
            old, saved = self.get_buffer(attribute), copied.get(prefix + attribute)
            if not isinstance(saved, Tensor) or saved.shape == old.shape:
                continue
            if old.numel() == 0 and saved.dim() == old.dim() and saved.shape[:-1] == old.shape[:-1]:
                with outside_inference_mode():
                    setattr(self, attribute, old.new_zeros(saved.shape))
            else:
                held, own = (self._content(name, values) for values in (saved, old))
                error_msgs.append(f"{self._said(name)} holds {held} in the checkpoint, and {own} in this objective")
                copied[prefix + attribute] = old
        super()._load_from_state_dict(copied, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def _directions(count: int, dimension: int, name: str) -> Tensor:
    """Random unit vectors, the same on every process."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return F.normalize(torch.randn(count, dimension, generator=generator), dim=-1)


# What `torch.compiler.assume_constant_result` does, without its import of the whole compiler, which eager users do without:
# these are constants in the graph of a caller that compiles around an objective, which a generator would break.
_directions._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _sources(program: Program) -> dict[str, str]:
    """For each memory of vectors, and each vector, the input of the objective whose features enter it first: D is theirs."""
    names = {stream.encode.index: stream.name for stream in streams(program)}
    return {
        update.state.string("name"): next(
            names[node.inputs[0].index] for node in walk([update.node]) if node.operation is POOLED
        )
        for update in program.updates
        if isinstance(update.state.type, MemoryType | VectorType)
    }
