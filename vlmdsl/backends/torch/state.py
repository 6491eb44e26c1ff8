"""State across steps, as buffers: read before a call, replaced after one in training mode, saved with the module."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmdsl.backends.torch.lengths import entering_streams
from vlmdsl.backends.torch.numbers import free_attribute, keep_precision, lasting, outside_inference_mode, start_tensor
from vlmdsl.backends.torch.values import Memory
from vlmdsl.ir import Node, Program, kept_inputs, sample_index, states
from vlmdsl.ir.operations.state import STATE
from vlmdsl.types import InputsType, LabelsType, PerSampleType, ScalarType, memory_axis

__all__ = ["State", "StateValue"]

StateValue: TypeAlias = Tensor | Memory
"""A number is a 0-d tensor."""


class State(nn.Module):
    """The state of one objective, or of several that share what they call alike; equal on all processes.

    A number is the buffer of its name, and a vector, [D]; a memory of Q vectors is two, `NAME` [Q, D] and `NAME_written`
    (0-d, int64), as one of labels is, `NAME` [Q] (int64). D is that of the features: it is 0 until `allocate` is called or a
    checkpoint is loaded. So are the sizes of kept inputs, images `NAME` [Q, 3, H, W], or ids of texts `NAME` [Q, L] with
    `NAME_mask` [Q, L]. Numbers of samples are a buffer [N], NaN where a sample has none yet; until `allocate_samples` says
    what N is, or a checkpoint is loaded, it is 0.
    """

    def __init__(self, *programs: Program) -> None:
        super().__init__()
        self._attributes: dict[str, str] = {}
        self._counters: dict[str, str] = {}
        self._masks: dict[str, str] = {}
        self._inputs: dict[str, str] = {}
        self._starts: dict[str, float] = {}
        self._random: set[str] = set()
        self._tables: list[str] = []
        self._index: str | None = None
        self._sources: dict[str, str] = {}
        for program in programs:
            index = sample_index(program)
            self._index = self._index if index is None else index.string("name")
            self._sources = entering_streams(program) | self._sources
            self._inputs = _inputs(program) | self._inputs
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
                if value.mask is not None:
                    setattr(self, self._masks[name], lasting(value.mask))
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

    def allocate_for(self, features: Mapping[str, Tensor]) -> None:
        """Allocate what enters from these inputs of the objective, by name; ValueError for what does not fit."""
        self.allocate({name: value.shape[-1] for name, value in features.items() if value.dim() > 1})
        for name, source in self._inputs.items():
            if source not in features:
                continue
            shape, held = features[source].shape[1:], self.get_buffer(self._attributes[name])
            if held.numel() == 0:
                attributes = [self._attributes[name], *([self._masks[name]] if name in self._masks else [])]
                with outside_inference_mode():
                    for attribute in attributes:
                        setattr(self, attribute, self.get_buffer(attribute).new_zeros(held.shape[0], *shape))
            elif held.shape[1:] != shape and not (name in self._masks and shape[0] <= held.shape[1]):
                kept, own = ("x".join(map(str, size)) for size in (held.shape[1:], shape))
                raise ValueError(f"{self._said(name)} keeps inputs of {kept}, but {source} has {own}")

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Within the context no entry of a queue counts."""
        written = {attribute: self.get_buffer(attribute) for attribute in self._counters.values()}
        try:
            for attribute, count in written.items():
                setattr(self, attribute, torch.zeros_like(count))
            yield
        finally:
            for attribute, count in written.items():
                setattr(self, attribute, count)

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
        if name in self._inputs:
            return f"{values.shape[0]} inputs" + (f" of {'x'.join(map(str, values.shape[1:]))}" if values.numel() else "")
        if values.dim() < 2:
            return f"{values.shape[0]} labels"
        return f"{values.shape[0]} vectors" + (f" of {values.shape[1]} features" if values.shape[1] else "")

    def _value(self, name: str) -> StateValue:
        value = self.get_buffer(self._attributes[name])
        if name not in self._counters:
            return value
        mask = self.get_buffer(self._masks[name]) if name in self._masks else None
        return Memory(value, self.get_buffer(self._counters[name]), mask)

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
        self.register_buffer(attribute, _unallocated(node, size))
        if node.type == InputsType("Text", memory_axis(size)):
            mask = self._masks[name] = free_attribute(self, f"{name}_mask")
            self.register_buffer(mask, torch.zeros(size, 0, dtype=torch.bool))
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
        names = dict.fromkeys([*self._counters, *self._sources, *self._tables])
        attributes = [(name, self._attributes[name]) for name in names] + [*self._masks.items()]
        for name, attribute in attributes:
            old, saved = self.get_buffer(attribute), copied.get(prefix + attribute)
            if not isinstance(saved, Tensor) or saved.shape == old.shape:
                continue
            if old.numel() == 0 and saved.dim() == old.dim() and (old.dim() == 1 or len(saved) == len(old)):
                with outside_inference_mode():
                    setattr(self, attribute, old.new_zeros(saved.shape))
            else:
                held, own = (self._content(name, values) for values in (saved, old))
                error_msgs.append(f"{self._said(name)} holds {held} in the checkpoint, and {own} in this objective")
                copied[prefix + attribute] = old
        super()._load_from_state_dict(copied, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def _unallocated(node: Node, size: int) -> Tensor:
    """The entries of a memory of which only the number is known."""
    if isinstance(node.type, LabelsType):
        return torch.zeros(size, dtype=torch.int64)
    if isinstance(node.type, InputsType):
        return torch.zeros(size, 0, dtype=torch.int64) if node.type.kind == "Text" else torch.zeros(size, 0, 0, 0)
    return torch.zeros(size, 0)


def _directions(count: int, dimension: int, name: str) -> Tensor:
    """Random unit vectors, the same on every process."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return F.normalize(torch.randn(count, dimension, generator=generator), dim=-1)


# What `torch.compiler.assume_constant_result` does, without its import of the whole compiler, which eager users do without:
# these are constants in the graph of a caller that compiles around an objective, which a generator would break.
_directions._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _inputs(program: Program) -> dict[str, str]:
    """For each memory of inputs the input of the objective that enters it."""
    kept = kept_inputs(program)
    memories = [update for update in program.updates if isinstance(update.state.type, InputsType)]
    return {update.state.string("name"): kept[update.node.inputs[1]] for update in memories}
