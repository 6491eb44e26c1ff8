"""The module that runs an objective: features in, loss and named terms out."""

from __future__ import annotations

import copy
import hashlib
import linecache
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmdsl.backends.torch.agreement import check_agreement
from vlmdsl.backends.torch.allowed import allowed_tree
from vlmdsl.backends.torch.chance import ChanceLevels
from vlmdsl.backends.torch.collectives import process_count
from vlmdsl.backends.torch.compiled import CompiledFunction, Emitted, Result
from vlmdsl.backends.torch.emit import emit, emit_value
from vlmdsl.backends.torch.given import GivenModules, applied_modules
from vlmdsl.backends.torch.learned import LearnedNumbers
from vlmdsl.backends.torch.lengths import compared_streams
from vlmdsl.backends.torch.lowered import LoweredFunction, Schedules
from vlmdsl.backends.torch.naming import passed_names
from vlmdsl.backends.torch.notebooks import ShownInNotebooks
from vlmdsl.backends.torch.numbers import on_device
from vlmdsl.backends.torch.passing import passed_axes
from vlmdsl.backends.torch.plugins import try_plugins
from vlmdsl.backends.torch.references import References
from vlmdsl.backends.torch.state import State, StateValue
from vlmdsl.backends.torch.validation import FeatureChecker
from vlmdsl.backends.torch.values import Table, TokenFeatures
from vlmdsl.ir import (
    Input,
    ModuleOutput,
    Node,
    Program,
    Stream,
    inputs,
    module_inputs,
    module_outputs,
    ramps_at,
    states,
    streams,
)
from vlmdsl.ir import ramps as ramps_of
from vlmdsl.ir.schedule import Applied, Schedule
from vlmdsl.planning import AFTER_EPOCH, applied_of
from vlmdsl.planning.linear import chunked_losses, losses_of_logits
from vlmdsl.planning.lowering import LoweringRequest
from vlmdsl.source import SourceMap

__all__ = ["Objective", "ObjectiveOutput"]

_FUNCTIONS = "_functions"


class _Functions(NamedTuple):
    """A schedule and its emitted functions: those `before` modules are called, by name, the `last` one, whose inputs the
    `checker` checks, and the one that follows an epoch, if there is one."""

    schedule: Schedule
    before: dict[str, Emitted[dict[str, Any]]]
    last: Emitted[Result]
    checker: FeatureChecker
    after_epoch: Callable[..., Any] | None = None


class ObjectiveOutput(NamedTuple):
    """The output of an objective: the loss to differentiate, its terms by name, and metrics to log (without gradient).

    `loss` is the sum of `terms`. `metrics` holds the recipe's own (`temperature`), for a contrastive term `NAME.accuracy`,
    the share of samples whose pair beats all other candidates, and `NAME.chance`, the term's value at chance where known;
    for matching `NAME.negatives`, and for focal losses `NAME.positives`: how many there are in the global batch.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Objective(ShownInNotebooks, LearnedNumbers):
    """A compiled objective over features.

    Call it with the features of this process's samples, by the names of `inputs`. Every process returns the loss of the
    global batch. Matrix products run in the dtype of the features and everything else in float32 at least, regardless of
    autocast.

    State (running means, queues) is in the buffers of `state`, the same on every process. A call in training mode updates
    it; one in evaluation mode returns the loss of the next training call and leaves it unchanged. What is updated once per
    epoch moves on by `after_epoch`.

    Args:
        program: a planned program.
        sources: its source texts, so that lines of `source` name their place.
        lowering: how similarities of all pairs are computed: `dense` makes matrices, `chunked` blocks of their rows, `auto`
            chooses by the sizes of each batch; or a dictionary of terms by name.
        compiled: run through `torch.compile(fullgraph=True)`; the first call then takes seconds, and so do the first one of
            other sizes and the first one of a single sample. No other size compiles again (`CompiledFunction`): all sizes
            but the first share one graph, for which `auto` chooses by the first of them.
        samples: how many samples the data set has, of an objective that keeps a number of each (`running_mean` with
            `per="sample"`); it takes `index` then, where the samples of a batch are among them.
        latex: a function that returns the formula; the method `latex` calls it.
        planner: a function that returns the plan; the method `plan` calls it.
    """

    def __init__(
        self,
        program: Program,
        *,
        sources: SourceMap | None = None,
        lowering: str | Mapping[str, str] | LoweringRequest = "auto",
        compiled: bool = False,
        samples: int | None = None,
        latex: Callable[[], str] | None = None,
        planner: Callable[..., object] | None = None,
    ) -> None:
        super().__init__()
        try_plugins(program)
        self.program, self._chance = program, ChanceLevels(program)
        self._request = LoweringRequest.of(lowering)
        losses = losses_of_logits(program)
        chunked = chunked_losses(program, {}, self._request)
        without_logits = [encoded for encoded, loss in losses.items() if loss in chunked]
        self.inputs: dict[str, Input] = {spec.name: spec for spec in inputs(program, without_logits)}
        """The input tensors by name: axes, dtype, meaning."""
        self.sources = sources
        """The texts of the recipe, for messages that name a place in it."""
        self._schedules = Schedules(program, self.inputs, self._request, chunked)
        self.schedule: Schedule = self._schedules.smallest
        """The steps of which this objective is the last one: what `backends.torch.step` executes, unless the logits of a
        batch are too large (`schedule_for`). Its lowerings are those of small batches."""
        self.passed: dict[Node, str] = passed_names(program, self.schedule)
        """The names of nodes that functions of `source` take from a batch or from each other."""
        self.source = emit(program, sources, self.schedule)
        """The torch source of this objective, and of what is computed before modules are called: exactly what runs, unless a
        batch is so large that `auto` chooses blocks."""
        self.streams: list[Stream] = streams(program)
        self.compared: list[tuple[str, str]] = compared_streams(program)
        """Pairs of inputs whose features are compared: they have the same dimension D."""
        self._latex, self._planner = latex, planner
        self.module_outputs: list[ModuleOutput] = module_outputs(program)
        """The outputs of modules that are applied to features."""
        encoded = [*(stream.encode for stream in self.streams), *(output.node for output in self.module_outputs)]
        self.outputs: dict[Node, Applied] = {node: applied_of(node) for node in encoded}
        """What the modules of a step give for each stream and each module that is applied to features, by its node."""
        self.applied: tuple[str, ...] = applied_modules(self.schedule)
        """The names of the modules that are applied to features."""
        self._states = frozenset(node.string("name") for node in states(program))
        self.state = State(program)
        """What outlives the step: running means, queues, numbers per sample."""
        if samples is not None:
            self.state.allocate_samples(samples)
        self.references = References(program)
        """The reference samples that this objective retrieves from; see `References.fill`."""
        self._compiled = compiled
        self._functions: dict[frozenset[Node], _Functions] = {}
        self._by_sizes: dict[frozenset[tuple[Node, int]], frozenset[Node]] = {}
        self.predicts = bool(losses)
        """Whether it has losses of logits over a vocabulary."""
        owners = [stream for stream in self.streams if stream.encode in losses]
        self._products = {stream.input("predicted"): losses[stream.encode] for stream in owners}
        every = [*inputs(program, losses), *module_inputs(program, losses)]
        self._weights = {spec.name for spec in every if spec.axes[:1] == ("V",)}
        self._functions_of(self.schedule.chunked_losses)  # whose source is now held to what is allowed
        self.register_numbers(program)  # last, so that existing attributes of the module keep their names

    def forward(self, modules: Mapping[str, Callable[..., Any]] | None = None, **features: Tensor) -> ObjectiveOutput:
        """Return the global loss of these samples; TypeError or ValueError names an input that does not fit.

        Args:
            modules: for an objective that applies modules to features (`text | image`), each by its name; see `called_by`.
            features: this process's samples, [b, ...] each; axes and dtypes are those of `inputs`. Instead of logits
                that only a token loss reads, `NAME_vocabulary`, it also takes the states that they are a product of,
                `NAME_predicted [b, L, W]`, with `MODULE_weight [V, W]` and `MODULE_bias [V]`, as `lowering="chunked"` does.
        """
        given_products = frozenset(loss for name, loss in self._products.items() if name in features)
        functions = self._functions_of(self.schedule.chunked_losses | given_products)
        if not torch.compiler.is_compiling():
            features = self._checked(features, functions.checker)
        if not self.applied and not functions.schedule.reads_outputs_early:
            return self.losses(features, functions.schedule)
        from vlmdsl.backends.torch.step import Step  # which runs objectives

        missing = [name for name in self.applied if name not in (modules or {})]
        if missing:
            raise TypeError(f"this objective applies modules to features: pass `modules` with {', '.join(missing)}")
        supplied = GivenModules(self, modules or {}, features)
        return Step(self, supplied)(supplied.environment())

    def schedule_for(self, sizes: Mapping[Node, int]) -> Schedule:
        """The schedule of a batch whose logits would take so many bytes, `sizes` by encoded text: a token loss whose logits
        are too large takes states and a weight, and makes the product itself."""
        if torch.compiler.is_compiling():  # sizes may be symbols
            return self.schedule
        key = frozenset(sizes.items())
        if key not in self._by_sizes:
            self._by_sizes[key] = chunked_losses(self.program, sizes, self._request)
        return self._functions_of(self._by_sizes[key]).schedule

    def losses(self, features: Mapping[str, Tensor], schedule: Schedule | None = None) -> ObjectiveOutput:
        """The output of the last function of the schedule; `features` are all of its inputs, and are not checked."""
        self.state.allocate_for(features)
        first = next(value for name, value in features.items() if value.dim() and name not in self._weights)
        last = self._functions_of((schedule or self.schedule).chunked_losses).last
        with _without_autocast(first.device):
            loss, terms, metrics, after = last(features, self.learned(), self._held())
        chance = self._chance(first.shape[0] * process_count(), self.state.filled())
        if self.training:
            self.state.write(after)
        device = first.device
        return ObjectiveOutput(
            on_device(loss, device),
            {name: on_device(value, device) for name, value in terms.items()},
            {name: on_device(value, device).detach() for name, value in (metrics | chance).items()},
        )

    def before(self, name: str, values: Mapping[str, Tensor], schedule: Schedule | None = None) -> dict[str, Any]:
        """Run a function that is computed before the modules of a stage; returns its values by name.

        Args:
            name: the name of a `Compute` of `schedule`.
            values: its inputs, by name.
            schedule: one of `schedule_for`.
        """
        self.state.allocate_for(values)
        function = self._functions_of((schedule or self.schedule).chunked_losses).before[name]
        with _without_autocast(next(iter(values.values())).device):
            results: dict[str, Any] = function(values, self.learned(), self._held())
        return results

    def after_epoch(self) -> None:
        """What follows the last step of an epoch: state that is updated once per epoch (`mixture`) is; without any, nothing.

        A hand-written loop calls it on every process, after the optimiser step and `after_step()` of the last batch.

        Example:
            >>> import torch, vlmdsl
            >>> kept = 'running_mean(score(image, text), per="sample", momentum=0)'
            >>> objective = vlmdsl.compile(f"contrast(image, text, weight=1 - mixture({kept}))", compiled=False, samples=4)
            >>> _ = objective(image=torch.eye(4), text=torch.eye(4).roll(1, 0) + torch.eye(4)[0], index=torch.arange(4))
            >>> objective.after_epoch()
            >>> objective.state.get_buffer("weight_probability")
            tensor([1., 0., 0., 0.])
        """
        function = self._functions_of(self.schedule.chunked_losses).after_epoch
        if function is not None:
            with torch.no_grad():
                self.state.write(function({}, self.learned(), self._held()))

    def ramps(self, step: int, steps: int = 0, per_epoch: int = 0) -> dict[str, Tensor]:
        """The values of schedules (`ramp`, `cosine_ramp`) at `step`, counted from 0: 0-d, by name.

        A hand-written loop passes them together with the features.

        Args:
            step: the number of optimiser steps so far.
            steps: the number of steps of the run; required if a schedule is over a share of it, else ValueError.
            per_epoch: the number of steps per epoch; required if a schedule is over epochs, else ValueError.

        Example:
            >>> import vlmdsl
            >>> objective = vlmdsl.compile('ramp(0, 1, over=50%, name="a") * contrast(image, text)')
            >>> objective.ramps(25, steps=100)
            {'a': tensor(0.5000)}
        """
        values = ramps_at(ramps_of(self.program), step, steps, per_epoch)
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}

    def value(self, node: Node, features: Mapping[str, Tensor]) -> Tensor:
        """Compute one tensor of the program's graph, such as compared features, for these inputs.

        Args:
            node: a node of `program` whose value is a tensor, or tokens, of which the values are returned.
            features: the inputs that it depends on, by the names of `inputs`; none where it is made of parameters alone.
        """
        function = _execute(self.program.name, emit_value(self.program, node))["objective"]
        first = next(iter(features.values()), None)
        with _without_autocast(next(self.parameters()).device if first is None else first.device):
            result: Any = function(features, self.learned(), self._held())
        value = result.values if isinstance(result, TokenFeatures) else result
        assert isinstance(value, Tensor), f"{node!r} is not a tensor"
        return value

    def latex(self) -> str:
        """The formula, in LaTeX."""
        if self._latex is None:
            raise RuntimeError("this objective was built without a formula; vlmdsl.compile builds one that has it")
        return self._latex()

    def plan(self, **options: object) -> object:
        """The plan for a batch, with costs; the options are those of `vlmdsl.plan`."""
        if self._planner is None:
            raise RuntimeError("this objective was built without a planner; vlmdsl.compile builds one that has it")
        return self._planner(**options)

    def extra_repr(self) -> str:
        """The recipe's name and what it takes, for `print(objective)`."""
        return f"{self.program.name}: " + ", ".join(f"{spec.name} [{', '.join(spec.axes)}]" for spec in self.inputs.values())

    def _checked(self, features: dict[str, Tensor], checker: FeatureChecker) -> dict[str, Tensor]:
        """The features, as this and every other process can use them."""
        if torch._C._get_tracing_state() is not None:
            raise RuntimeError(
                "torch.jit.trace would fix the sizes of this one batch: use torch.export.export, which takes dynamic ones"
            )
        if self.training and self.state.changes and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "this objective has state, which a recomputation in the backward pass would update twice: exclude it from "
                "activation checkpointing"
            )
        fault: Exception | None = None
        try:
            checker.check(features)
            self.state.check_index(features)
        except (TypeError, ValueError) as found:
            fault = found
        check_agreement(features, fault)
        if torch.is_inference_mode_enabled():
            return features
        return {name: value.clone() if value.is_inference() else value for name, value in features.items()}

    def _functions_of(self, losses: frozenset[Node]) -> _Functions:
        """The schedule in which these token losses make their products, and its functions."""
        if losses not in self._functions:
            self._functions[losses] = self._made_functions(losses)
        return self._functions[losses]

    def _made_functions(self, losses: frozenset[Node]) -> _Functions:
        schedules, source = self._schedules, self.source
        if losses != self.schedule.chunked_losses:
            schedules = Schedules(self.program, self.inputs, self._request, losses)
            source = emit(self.program, self.sources, schedules.smallest)
        schedule = schedules.smallest
        passed = self.passed = self.passed | passed_names(self.program, schedule)
        after_epoch = _execute(self.program.name, source).get(AFTER_EPOCH)
        absent = schedule.without_logits
        expected = [*inputs(self.program, absent), *module_inputs(self.program, absent)]
        axes = {spec.name: spec.axes for spec in expected}
        functions: dict[str, Emitted[Any]] = {}
        for compute in schedule.computes:
            forms = LoweredFunction[Any](schedules, partial(_lowered, self.program, self.sources, compute.name))
            own = axes | passed_axes(compute, schedule, passed)
            functions[compute.name] = CompiledFunction(forms, own) if self._compiled else forms
        last = functions.pop("objective")
        return _Functions(schedule, functions, last, FeatureChecker(self.program, absent), after_epoch)

    def __getstate__(self) -> dict[str, Any]:
        """Everything except the functions, which are recreated from the source."""
        return {name: value for name, value in self.__dict__.items() if name != _FUNCTIONS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._functions = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Objective:
        """Parameters and state are copied; what never changes (the program, its functions and their graphs) is shared."""
        for shared in (self.program, self.schedule, self.passed, self.streams, self.outputs, self.inputs, self._schedules):
            memo[id(shared)] = shared
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        copied.__dict__[_FUNCTIONS] = self.__dict__[_FUNCTIONS]
        return copied

    def _held(self) -> dict[str, StateValue | Table]:
        """State and reference set, by the names that emitted source reads."""
        own = {name: value for name, value in self.state.read().items() if name in self._states}
        return {**own, **self.references.read()}


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device.type)  # not on `meta`
    if not available or not (torch.compiler.is_compiling() or torch.is_autocast_enabled(device.type)):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _lowered(program: Program, sources: SourceMap | None, name: str, schedule: Schedule) -> Emitted[Any]:
    """A function as it is emitted for a schedule.

    Not a method: copies of an objective share it, and must not keep the original alive.
    """
    function: Emitted[Any] = _execute(program.name, emit(program, sources, schedule))[name]
    return function


def _execute(name: str, source: str) -> dict[str, Callable[..., Any]]:
    """The functions of emitted source by name, checked by `allowed`, and registered so that tracebacks show its lines."""
    filename = f"<objective {name} {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {}
    exec(compile(allowed_tree(source), filename, "exec"), namespace)
    return {key: value for key, value in namespace.items() if isinstance(value, FunctionType)}
