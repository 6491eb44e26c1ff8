"""Emitted functions through `torch.compile`: at most three graphs, whatever the sizes.

The first sizes get a static graph, the fastest one; a batch of one, which the compiler always specialises, gets another; all
other sizes share a third with symbolic batch and lengths, which runs as the first of them asks for. Everything else that
would cause a recompilation is normalised before the call: strides, the order of names, the gradient mode, which inputs need
a gradient, axes of length one. Other dtypes, devices, feature dimensions D or numbers of processes are another kind of
inputs, with its own three graphs.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
import torch._functorch.config
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vlmdsl.backends.torch.collectives import process_count, process_index
from vlmdsl.backends.torch.compile_cache import compile_first
from vlmdsl.backends.torch.state import StateValue
from vlmdsl.backends.torch.values import Memory, Table
from vlmdsl.ir import CODES, Node
from vlmdsl.ir.operations.encoding import PATCH_CODES

__all__ = ["CompiledFunction", "Emitted", "Form", "Forms", "Result"]

Result: TypeAlias = tuple[
    Tensor | float, dict[str, Tensor | float], dict[str, Tensor | float], dict[str, StateValue]
]  # fmt: skip
"""Loss, terms, metrics, state after the step."""
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Emitted: TypeAlias = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, StateValue | Table]], R]
"""A function of inputs, parameters and state: of the losses, or of what modules are applied to."""

_STATIC_AXES = frozenset({"D", "V", "W", "K", "C", "H", "E"})
"""Feature dimensions, edges of a box, sides of images and numbers of picks belong to a model or a recipe, not a batch."""
_NO_TARGET = -100
_TARGETS = tuple(f"_{part}" for part in (*CODES.values(), PATCH_CODES))
"""The ends of the names of inputs that hold what is to be predicted: where they are padded, nothing is."""
_TOO_LARGE = (
    "the similarity matrices of this batch are too large for the graph that it shares with smaller batches: it makes them; "
    'compile with lowering="chunked" for blocks of their rows at all sizes, or call with the largest size first'
)


class Form(NamedTuple, Generic[R_co]):
    """An emitted function, and which of its operations run in blocks."""

    function: Emitted[R_co]
    chunked: frozenset[Node]


class Forms(Protocol[R_co]):
    """An emitted function in the forms that batches of different sizes ask for (`LoweredFunction`)."""

    def __call__(
        self, inputs: Mapping[str, Tensor], parameters: Mapping[str, Tensor], state: Mapping[str, StateValue | Table]
    ) -> R_co:
        """Its result for these inputs, in the form for their sizes."""
        ...

    @property
    def smallest(self) -> Form[R_co]:
        """The form for a batch of one."""
        ...

    def of_batch(self, inputs: Mapping[str, Tensor]) -> Form[R_co]:
        """The form for the sizes of these inputs."""
        ...


class _First(NamedTuple):
    """The call that the static graph of a kind was compiled for: its sizes, and the tensors that can have a gradient."""

    sizes: tuple[object, ...]
    learning: frozenset[str]


class CompiledFunction(Generic[R]):
    """An emitted function, compiled when it is first called with tensors of a kind.

    Args:
        forms: the forms of a pure function, as `emit` writes it.
        axes: the axes of its inputs by name (`Input.axes`), in the order in which graphs get them.
    """

    def __init__(self, forms: Forms[R], axes: Mapping[str, tuple[str, ...]]) -> None:
        self._forms = forms
        self._shared: dict[object, Form[R]] = {}
        self._axes = dict(axes)
        self._first: dict[object, _First] = {}
        self._graphs: dict[tuple[object, str], Emitted[R]] = {}
        self._lock = threading.RLock()

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor],
        state: Mapping[str, StateValue | Table],
    ) -> R:
        """Call the function; eagerly for tensors without data (`meta`), and inside other transformations.

        What comes with an output of a tower and is for text decoders alone has no axes, and is left out.
        """
        inputs = {name: value for name, value in inputs.items() if name in self._axes}
        if not _compilable(inputs):
            return self._forms(inputs, parameters, state)
        needed = frozenset(name for name, value in {**inputs, **parameters}.items() if value.requires_grad)
        recorded = bool(needed) and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        if recorded:
            return self._run(inputs, parameters, state, needed)
        # One gradient mode for all graphs: results are detached after the call if no gradient is needed.
        with torch.inference_mode(False), torch.enable_grad():
            return _detached(self._run(inputs, parameters, state, None))

    def _run(
        self,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor],
        state: Mapping[str, StateValue | Table],
        needed: frozenset[str] | None,
    ) -> R:
        """The call of one graph; `needed` are the tensors whose gradient is recorded (None: nothing is)."""
        kind, sizes = self._kind(inputs, parameters, state), self._sizes(inputs, state)
        first = self._first.get(kind)
        if first is None:
            with self._lock:
                first = self._first.setdefault(
                    kind, _First(sizes, _floating(inputs, parameters) if needed is None else needed)
                )
        if first.sizes == sizes and (needed is None or needed <= first.learning):
            values = {name: inputs[name] for name in self._axes if name in inputs}
            role, learning = "first", first.learning
        else:
            expected = [name for name in self._axes if name in inputs or self._masked(name, inputs)]
            values = {name: self._padded(name, inputs) for name in expected}
            role, learning = "one" if self._samples(inputs) == 1 else "many", _floating(inputs, parameters)
        prepared = {name: _prepared(value, name in learning) for name, value in _distinct(values).items()}
        learned = {name: _prepared(value, name in learning) for name, value in parameters.items()}
        if role != "first":
            prepared = {name: self._marked(name, value, role) for name, value in prepared.items()}
            state = {name: _marked_table(value) if isinstance(value, Table) else value for name, value in state.items()}
        return self._call(kind, role, (prepared, learned, dict(state)))

    def _call(self, kind: object, role: str, arguments: tuple[Any, ...]) -> R:
        graph = self._graphs.get((kind, role))
        if graph is not None:
            if role == "many":
                self._check_shared(kind, arguments[0])
            return graph(*arguments)
        with self._lock:  # concurrent threads wait for one compilation
            graph = self._graphs.get((kind, role)) or _graph(self._form(kind, role, arguments[0]).function, role)
            result = compile_first(partial(graph, *arguments))
            self._graphs[kind, role] = graph
        return result

    def _form(self, kind: object, role: str, inputs: Mapping[str, Tensor]) -> Form[R]:
        """The form that the graph of a role is made of: that of the first sizes that need it."""
        form = self._forms.smallest if role == "one" else self._forms.of_batch(inputs)
        if role == "many":
            self._shared[kind] = form
        return form

    def _check_shared(self, kind: object, inputs: Mapping[str, Tensor]) -> None:
        """Warn where the graph of all other sizes makes matrices that are too large for these."""
        if not self._forms.of_batch(inputs).chunked <= self._shared[kind].chunked:
            warnings.warn(_TOO_LARGE, stacklevel=2)

    def _kind(
        self,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor],
        state: Mapping[str, StateValue | Table],
    ) -> object:
        """The key of a set of graphs: everything except the sizes of a batch. Optional masks do not count."""
        features = tuple(
            (name, value.dtype, value.device, *(value.shape[i] for i in self._places(name, static=True)))
            for name, value in inputs.items()
            if value.dtype is not torch.bool
        )
        learned = tuple((name, value.dtype, value.device) for name, value in parameters.items())
        held = tuple(
            (name, part.dtype, part.device, part.shape[1:] if isinstance(value, Table) else part.shape)
            for name, value in state.items()
            for part in _parts(value)
        )
        return frozenset(features), learned, held, process_count(), process_index(), torch.get_default_dtype()

    def _sizes(self, inputs: Mapping[str, Tensor], state: Mapping[str, StateValue | Table]) -> tuple[object, ...]:
        sizes = tuple((name, inputs[name].shape) for name in self._axes if name in inputs)
        return sizes + tuple(len(value.keys) for value in state.values() if isinstance(value, Table))

    def _places(self, name: str, *, static: bool) -> list[int]:
        """The axes of an input that are constant over batches, or those that are not."""
        return [place for place, axis in enumerate(self._axes[name]) if (axis in _STATIC_AXES) is static]

    def _samples(self, inputs: Mapping[str, Tensor]) -> int:
        batched = (value for name, value in inputs.items() if self._axes.get(name, ("B",))[:1] == ("B",))
        return next((value.shape[0] for value in batched), 0)

    def _padded(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """An input padded to at least two tokens; a missing mask is created. The compiler would specialise a single
        token."""
        value = inputs.get(name)
        if value is None:
            tokens = inputs[self._masked(name, inputs)[0]]
            value = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        filler = _NO_TARGET if name.endswith(_TARGETS) else 0
        for place in self._places(name, static=False)[1:]:
            if value.shape[place] < 2:
                behind = 2 * (value.dim() - 1 - place)
                value = F.pad(value, (0,) * behind + (0, 2 - value.shape[place]), value=filler)
        return value

    def _masked(self, mask: str, inputs: Mapping[str, Tensor]) -> list[str]:
        """The tokens among the inputs that a mask of this name is for; none where some have a class token more."""
        stream = mask.removesuffix("_mask")
        own = [name for name in (f"{stream}_tokens", f"{stream}_states", stream) if name != mask and name in inputs]
        tokens = [name for name in own if len(self._axes[name]) == 3]
        return tokens if len({inputs[name].shape[1] for name in tokens}) == 1 else []

    def _marked(self, name: str, value: Tensor, role: str) -> Tensor:
        """A new tensor object for the same data, with its symbolic axes marked."""
        places = self._places(name, static=False)[1 if role == "one" else 0 :]
        return _with_symbols(value, places) if places else value


def _floating(inputs: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> frozenset[str]:
    """The names of floating-point tensors."""
    return frozenset(name for name, value in {**inputs, **parameters}.items() if value.is_floating_point())


def _marked_table(table: Table) -> Table:
    return table._replace(values=_with_symbols(table.values, [0]), keys=_with_symbols(table.keys, [0]))


def _with_symbols(value: Tensor, places: list[int]) -> Tensor:
    value = value.view_as(value)
    torch._dynamo.maybe_mark_dynamic(value, places)
    return value


def _compilable(inputs: Mapping[str, Tensor]) -> bool:
    """Whether a graph can be compiled and run here: not inside another trace or transformation, and not without data."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(value.device.type != "meta" for value in inputs.values())


def _graph(function: Emitted[R], role: str) -> Emitted[R]:
    """The function with a separate code object, by which the compiler looks up its graphs."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"{function.__name__}_{role}")
    copied = FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
    graph: Emitted[R] = torch.compile(copied, fullgraph=True, dynamic=False)
    return graph


def _distinct(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each an object of its own: a graph for inputs that are one object fits no others."""
    objects: set[int] = set()
    distinct: dict[str, Tensor] = {}
    for name, value in values.items():
        distinct[name] = value.view_as(value) if id(value) in objects else value
        objects.add(id(value))
    return distinct


def _prepared(value: Tensor, learning: bool) -> Tensor:
    """The tensor in the default layout, requiring a gradient if it is `learning`."""
    if value.is_inference():
        value = value.clone()  # inference tensors cannot be used in graphs with gradients
    if type(value) is torch.nn.Parameter or hasattr(value, "_has_dynamo_dim_marking"):
        value = value.view_as(value)
    if value.stride() != _strides(value.shape):
        value = value.clone(memory_format=torch.contiguous_format)
    if value.requires_grad is learning:
        return value
    return value.detach().requires_grad_(learning)


def _strides(shape: torch.Size) -> tuple[int, ...]:
    """The strides of a contiguous tensor; a contiguous slice may have others along axes of length one."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _parts(value: StateValue | Table) -> tuple[Tensor, ...]:
    if isinstance(value, Memory):
        return (value.values, value.written) if value.mask is None else (value.values, value.written, value.mask)
    if isinstance(value, Table):
        return (value.values, value.keys) if value.handle is None else (value.values, value.keys, value.handle)
    return (value,)


def _detached(result: R) -> R:
    detached: R = tree_map_only(Tensor, Tensor.detach, result)
    return detached
