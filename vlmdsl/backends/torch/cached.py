"""A step in micro-batches with the gradient of the whole batch.

Towers run twice: first in chunks of samples, without a graph, only for their features; then, when the gradients of all
features are known, chunk by chunk with a graph. Everything between that may depend on the whole batch (heads with batch
statistics, emitted functions) runs once, with a graph, on the features. Source: gradient caching (Gao et al., 2021,
arXiv:2101.06983), here for every step of a schedule: the outputs of a step are detached from it, and the backward pass runs
the steps strictly in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.collectives import average_gradients
from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput
from vlmdsl.backends.torch.step import Environment, Loaded, Modules, Step
from vlmdsl.ir.schedule import Apply, Compute
from vlmdsl.ir.uses import PER_SAMPLE

__all__ = ["CachedStep"]


@dataclass
class _Call:
    """A call of a tower that will be repeated with a graph: its inputs, its features, and the random state of each chunk."""

    apply: Apply
    inputs: list[Loaded]
    leaves: list[Any]
    states: list[_RandomState] = field(default_factory=list)


@dataclass
class _Cut:
    """The outputs of a step, with their graph, and the same tensors detached, which later steps read."""

    outputs: list[Tensor]
    leaves: list[Tensor]


class StepModel(Modules, Protocol):
    """A model that runs a schedule: `VisionLanguageModel`."""

    @property
    def objective(self) -> Objective: ...

    def begin(self, batch: Any) -> Environment:
        """What a step starts from."""
        ...

    def check_per_sample(self) -> None:
        """`DiagnosticError` (V0833) where a tower that learns has batch statistics."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class CachedStep(Step):
    """A training step of a model whose towers hold the activations of `micro` samples at a time, with the gradient of the
    whole batch.

    Call it with a batch, then `backward` with the loss, instead of `model(batch)` and `loss.backward()`. On several
    processes do not wrap the model in `DistributedDataParallel`: `backward` averages all gradients itself, once. Outputs and
    gradients equal those of `model(batch)` up to rounding; dropout draws other numbers of the same distribution.

    Raises `DiagnosticError` (V0833) for a tower with batch statistics, whose features of a chunk are not those of the batch.

    Args:
        model: a `VisionLanguageModel`.
        micro: samples of this process that go through a tower at once; the last chunk may have fewer.

    >>> import torch, vlmdsl
    >>> from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
    >>> from vlmdsl.runtime.model import VisionLanguageModel
    >>> from vlmdsl.runtime.values import Batch, ImageBatch
    >>> shape = VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=1)
    >>> recipe = "recipe views(a: Image, b: Image)\\nminimize contrast(a, b)"
    >>> objective = vlmdsl.compile(recipe, compiled=False)
    >>> model = VisionLanguageModel({"vision": VisionTransformer(shape, 4, ("pooled",))}, objective)
    >>> images = {name: ImageBatch(torch.rand(6, 3, 8, 8)) for name in ("a", "b")}
    >>> batch = Batch(images, torch.arange(6), list("012345"))
    >>> step = CachedStep(model, micro=2)
    >>> output = step(batch)            # instead of model(batch)
    >>> step.backward(output.loss)      # instead of output.loss.backward()
    """

    def __init__(self, model: StepModel, micro: int) -> None:
        super().__init__(model.objective, model)
        if micro < 1:
            raise ValueError(f"micro is the number of samples of a chunk, at least 1, not {micro}")
        model.check_per_sample()
        self.model, self.micro = model, micro
        self._records: list[_Call | _Cut] = []
        self._precision: Callable[[], AbstractContextManager[object]] = ExitStack

    def __call__(self, batch: Any) -> ObjectiveOutput:
        """The losses of a batch; their graph ends at the features, so call `backward` of this step, not of the loss."""
        self._records = []
        self._precision = _same_autocast()
        return super().__call__(self.model.begin(batch))

    def apply(self, step: Apply, environment: Environment) -> list[Any]:
        """The output of a module for each value of a call, without a graph behind it."""
        if step.use.module.family not in PER_SAMPLE:
            return self._cut(super().apply(step, environment))
        inputs = self.modules.inputs(step, environment)
        record = _Call(step, inputs, [])
        with torch.no_grad():
            parts = []
            for samples in self._chunks(inputs):
                record.states.append(_RandomState.now())
                parts.append(self.modules.call_tower(step, [_of(samples, value) for value in inputs]))
        torch.clear_autocast_cache()  # weights cast without a graph, which the second pass would reuse
        features = [_joined(chunks) for chunks in zip(*parts, strict=True)]
        if not (torch.is_grad_enabled() and step.use.gradient):
            return features
        record.leaves = [_leaves(value) for value in features]
        self._records.append(record)
        return record.leaves

    def compute(self, step: Compute, environment: Environment) -> None:
        """As in any step; the outputs are detached."""
        super().compute(step, environment)
        computed = [node for node in step.gives if isinstance(environment[node], Tensor | tuple)]
        environment.update(zip(computed, self._cut([environment[node] for node in computed]), strict=True))

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss, or of a multiple of it, to every parameter; on several processes their mean."""
        loss.backward()  # type: ignore[no-untyped-call]
        for record in reversed(self._records):
            if isinstance(record, _Cut):
                _backward(record.outputs, [leaf.grad for leaf in record.leaves])
            else:
                self._repeat(record)
        self._records = []
        average_gradients(self.model.parameters())

    def _repeat(self, record: _Call) -> None:
        """Repeat the calls of a tower with a graph, chunk by chunk."""
        gradients = [tuple(None if leaf is None else leaf.grad for leaf in leaves) for leaves in record.leaves]
        if all(gradient is None for parts in gradients for gradient in parts):
            return
        taken = _Taken(record.inputs)
        for samples, state in zip(self._chunks(record.inputs), record.states, strict=True):
            with state.restored(), self._precision():
                outputs = self.modules.call_tower(record.apply, taken.chunk(samples))
            flat = [part for parts in outputs for part in parts]
            own = [None if whole is None else whole[samples] for parts in gradients for whole in parts]
            _backward(flat, own)
            taken.collect(samples)
        taken.backward()

    def _chunks(self, inputs: Sequence[Loaded]) -> Iterator[slice]:
        samples = len(inputs[0])
        return (slice(start, min(start + self.micro, samples)) for start in range(0, samples, self.micro))

    def _cut(self, values: list[Any]) -> list[Any]:
        """The values detached from their graph, which is kept for the backward pass."""
        record = _Cut([], [])

        def cut(value: Any) -> Any:
            if isinstance(value, tuple):
                parts = [cut(part) for part in value]
                return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
            if not isinstance(value, Tensor) or not value.requires_grad:
                return value
            leaf = value.detach().requires_grad_()
            record.outputs.append(value)
            record.leaves.append(leaf)
            return leaf

        leaves = [cut(value) for value in values]
        if record.leaves:
            self._records.append(record)
        return leaves


class _Taken:
    """Inputs of a tower, chunk by chunk, and the gradients of those that have one: what other modules gave.

    Each chunk is a separate leaf whose gradient is added into a slice of the whole: slicing the whole as an input would
    allocate a gradient of full size per chunk.
    """

    def __init__(self, inputs: Sequence[Loaded]) -> None:
        self._inputs = inputs
        self._wholes: list[Tensor] = []
        for value in inputs:
            value.map(self._note)
        self._gradients = [torch.zeros_like(whole) for whole in self._wholes]
        self._chunk: list[Tensor] = []

    def chunk(self, samples: slice) -> list[Loaded]:
        """The inputs of these samples."""
        self._chunk = []
        return [value.map(lambda tensor: self._part(tensor, samples)) for value in self._inputs]

    def collect(self, samples: slice) -> None:
        """Collect the gradients from the backward pass of a chunk."""
        for whole, part in zip(self._gradients, self._chunk, strict=True):
            if part.grad is not None:
                whole[samples] += part.grad

    def backward(self) -> None:
        """Pass the gradients on to where the inputs came from."""
        _backward(self._wholes, self._gradients)

    def _note(self, tensor: Tensor) -> Tensor:
        if tensor.requires_grad:
            self._wholes.append(tensor)
        return tensor

    def _part(self, tensor: Tensor, samples: slice) -> Tensor:
        part = tensor[samples].detach()
        if tensor.requires_grad:
            self._chunk.append(part.requires_grad_())
        return part


class _RandomState:
    """The state of torch's generators: of the CPU, and of every CUDA device that is in use."""

    def __init__(self, cpu: Tensor, devices: dict[int, Tensor]) -> None:
        self._cpu, self._devices = cpu, devices

    @classmethod
    def now(cls) -> _RandomState:
        """The state at this moment."""
        used = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        return cls(torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in used})

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore this state inside the context, and the current one afterwards."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._cpu)
            for device, state in self._devices.items():
                torch.cuda.set_rng_state(state, device)
            yield


def _of(samples: slice, value: Loaded) -> Loaded:
    return value.map(lambda tensor: tensor[samples])


def _same_autocast() -> Callable[[], AbstractContextManager[object]]:
    """A factory of contexts with the current autocast settings."""
    kinds = [kind for kind in ("cpu", "cuda") if kind == "cpu" or torch.cuda.is_available()]
    settings = [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in kinds]

    def entered() -> ExitStack:
        stack = ExitStack()
        for kind, dtype, enabled in settings:
            stack.enter_context(torch.autocast(kind, dtype, enabled))
        return stack

    return entered


def _backward(outputs: Sequence[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
    """The backward pass of those outputs that have a gradient."""
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, gradients, strict=True)
        if output is not None and gradient is not None and output.requires_grad
    ]
    if pairs:
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def _leaves(features: Any) -> Any:
    """The same features, as tensors that a gradient is accumulated in."""
    return type(features)(
        *(part.detach().requires_grad_() if part is not None and part.is_floating_point() else part for part in features)
    )


def _joined(chunks: Sequence[Any]) -> Any:
    """The features of all samples, joined from chunks."""
    parts = zip(*chunks, strict=True)
    return type(chunks[0])(*(None if part[0] is None else torch.cat(part) for part in parts))
