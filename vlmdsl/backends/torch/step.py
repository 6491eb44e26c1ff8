"""Executes the schedule of a step: module calls and emitted functions, in order, on the values of a batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput
from vlmdsl.backends.torch.passing import passed_tensors
from vlmdsl.backends.torch.values import PredictedTokens
from vlmdsl.ir import CODES, ModuleOutput, Node, Stream, loaded_origin
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.mining import fetches_input
from vlmdsl.ir.schedule import Applied, Apply, Compute, Linear, Value
from vlmdsl.ir.uses import PER_SAMPLE
from vlmdsl.planning import linear_of, logits_of, product_of
from vlmdsl.types import FieldType

__all__ = ["Environment", "Loaded", "Modules", "Step"]

Environment: TypeAlias = dict[Value, Any]
"""The values of a step so far.

A number or a plain field is a tensor; a field that modules take is a dictionary from each form to `Loaded`; the output of a
tower has the attributes `pooled`, `tokens` and `mask`, that of a head is a tensor, that of a vocabulary `PredictedTokens`.
"""


class Loaded(Protocol):
    """A field, or a view of one, in a form in which some module takes it: a data class whose `value` holds its tensors, and
    `ports` what comes with it."""

    @property
    def value(self) -> tuple[Tensor | None, ...]: ...

    @property
    def ports(self) -> Mapping[str, Any]: ...

    def map(self, function: Callable[[Tensor], Tensor]) -> Loaded:
        """Apply a function to each of its tensors, in a fixed order."""
        ...

    def __len__(self) -> int:
        """The number of samples."""
        ...


class Modules(Protocol):
    """Calls the modules of a schedule."""

    def inputs(self, apply: Apply, environment: Environment) -> list[Any]:
        """The inputs of a tower for each value of a call: `Loaded` each."""
        ...

    def call_tower(self, apply: Apply, inputs: Sequence[Any]) -> list[Any]:
        """The features of each input, named tuples of tensors, from one call of the tower."""
        ...

    def images(self, output: Applied, environment: Environment) -> Mapping[str, Tensor]:
        """What a tower took for this output: `pixels` [b, 3, H, W], and which of their patches [b, P] were `dropped` or
        `replaced`, where some were."""
        ...

    def words(self, output: Applied, environment: Environment) -> Tensor:
        """Which words of the text that a tower took for this output name each region: [b, R, L], bool."""
        ...

    def segments(self, output: Applied, environment: Environment) -> Tensor:
        """The segments [b, P] of the patches of the images that a tower took for this output."""
        ...

    def call_whole(self, apply: Apply, environment: Environment) -> list[Any]:
        """The outputs of a head or a vocabulary, which may depend on the whole batch."""
        ...

    def linear(self, linear: Linear, environment: Environment) -> tuple[PredictedTokens, Tensor, Tensor | None]:
        """The states of predicted tokens, and the weight [V, W] and the bias [V] that they are to be multiplied with."""
        ...

    def logit_sizes(self, environment: Environment) -> dict[Node, int]:
        """The bytes that logits would take, by encoded text, where weights for `linear` can be had."""
        ...


class Step:
    """One step of an objective, with the modules that its schedule calls.

    Args:
        objective: its `schedule` says what runs; its last function gives the losses.
        modules: calls the modules.
    """

    def __init__(self, objective: Objective, modules: Modules) -> None:
        self.objective, self.modules = objective, modules
        self.schedule = objective.schedule
        """What runs: that of the objective, unless the logits of a batch take too much memory."""

    def __call__(self, environment: Environment) -> ObjectiveOutput:
        """Run the step on the `environment`, which holds the values of `schedule.load`; adds outputs and computed values to
        it."""
        sizes = self.modules.logit_sizes(environment) if self.objective.predicts else {}
        schedule = self.schedule = self.objective.schedule_for(sizes) if sizes else self.objective.schedule
        features = self.features(environment)
        if self.objective.applied or schedule.reads_outputs_early:
            return self.objective.losses(features, schedule)
        output: ObjectiveOutput = self.objective(**features)
        return output

    def features(self, environment: Environment) -> dict[str, Any]:
        """Run everything before the last function: the inputs of that function, by name."""
        *before, last = self.schedule.steps
        assert isinstance(last, Compute), "a step ends with its losses"
        for step in before:
            if isinstance(step, Apply):
                environment.update(zip(step.outputs, self.apply(step, environment), strict=True))
            else:
                self.compute(step, environment)
        return dict(self._features(last, environment))

    def outputs(self, environment: Environment) -> dict[str, Any]:
        """The same with all that earlier functions take of modules, by name: what `Objective.value` computes a node from,
        whichever function it belongs to."""
        features = self.features(environment)
        for step in self.schedule.computes:
            features = dict(self._outputs(step, environment)) | features
        return features

    def apply(self, step: Apply, environment: Environment) -> list[Any]:
        """The output of a module for each value of a call."""
        if step.use.module.family in PER_SAMPLE:
            return self.modules.call_tower(step, self.modules.inputs(step, environment))
        return self.modules.call_whole(step, environment)

    def compute(self, step: Compute, environment: Environment) -> None:
        """Add the outputs of an emitted function; images in each format in which modules take them."""
        names = self.objective.passed
        # Segments are read as those of patches, which come with the outputs of a tower.
        nodes = [value for value in step.takes if isinstance(value, Node) and value.type != FieldType("Segments")]
        tensors = dict(self._outputs(step, environment))
        for node in nodes:
            if not _is_input(node):
                tensors |= passed_tensors(node, names[node], environment[node])
        forms = [[*environment[node]] for node in nodes if node.type == FieldType("Image")]
        for form in dict.fromkeys(form for own in forms for form in own) or {None: None}:
            for node in nodes:
                if _is_input(node):
                    tensors |= passed_tensors(node, names[node], _in_form(environment[node], form)[1].value)
            results = self.objective.before(step.name, tensors, self.schedule)
            for node in step.gives:
                if _is_input(node):
                    own, loaded = _in_form(environment[loaded_origin(node)], form)
                    environment.setdefault(node, {})[own] = _changed(node, loaded, results[names[node]])
                elif node.operation is CONTRAST:
                    environment[node] = results[names[node]], results[f"{names[node]}_accuracy"]
                else:
                    environment[node] = results[names[node]]

    def _features(self, last: Compute, environment: Environment) -> Iterator[tuple[str, Any]]:
        """The inputs of the objective, by name."""
        yield from self._outputs(last, environment)
        for node in last.takes:
            if isinstance(node, Node) and node in environment:
                value = _in_form(environment[node], None)[1].value if _is_input(node) else environment[node]
                yield from passed_tensors(node, self.objective.passed[node], value).items()

    def _outputs(self, step: Compute, environment: Environment) -> Iterator[tuple[str, Tensor]]:
        """The outputs of modules that a function takes, by the names of its inputs."""
        outputs = self.objective.outputs
        for stream in self.objective.streams:
            applied = outputs[stream.encode]
            yield from _of_stream(stream, applied, step, environment)
            yield from self._predicted(stream, applied, step, environment)
            if (stream.pixels or stream.dropped or stream.replaced) and applied in step.takes:
                parts = self.modules.images(applied, environment).items()
                yield from ((stream.input(part), tensor) for part, tensor in parts if getattr(stream, part))
            if stream.words and applied in step.takes:
                yield stream.input("words"), self.modules.words(applied, environment)
            if stream.segments and applied in step.takes:
                yield stream.input("segments"), self.modules.segments(applied, environment)
        for output in self.objective.module_outputs:
            yield from _of_module(output, outputs[output.node], step, environment)
            yield from self._predicted(output, outputs[output.node], step, environment)
            if output.logits and product_of(output.node) in step.takes:
                yield from self._factors(product_of(output.node), output, environment)

    def _predicted(
        self, owner: Stream | ModuleOutput, states: Applied, step: Compute, environment: Environment
    ) -> Iterator[tuple[str, Tensor]]:
        """What a function takes of tokens that are predicted: logits, or what they are a product of."""
        if not owner.vocabulary:
            return
        logits, linear = logits_of(states), linear_of(states)
        if not {logits, linear} & {*step.takes}:
            return
        if logits in step.takes:
            tokens: PredictedTokens = environment[logits]
            yield owner.input("vocabulary"), tokens.values
        else:
            tokens = yield from self._factors(linear, owner, environment)
        for output in CODES.values():
            if getattr(owner, output):
                yield owner.input(output), getattr(tokens, output)

    def _factors(
        self, linear: Linear, owner: Stream | ModuleOutput, environment: Environment
    ) -> Generator[tuple[str, Tensor], None, PredictedTokens]:
        """What logits are a product of; returns the states with what they are to predict."""
        tokens, weight, bias = self.modules.linear(linear, environment)
        yield owner.input("predicted"), tokens.values
        yield f"{owner.linear}_weight", weight
        if bias is not None:
            yield f"{owner.linear}_bias", bias
        return tokens


def _is_input(node: Node) -> bool:
    """Whether a value is an image or a text, as towers take it."""
    return node.type in (FieldType("Image"), FieldType("Text"))


def _in_form(forms: Mapping[Hashable, Loaded], form: Hashable) -> tuple[Hashable, Loaded]:
    """An input in that form, or in the only one that it has."""
    own = form if form in forms else next(iter(forms))
    return own, forms[own]


def _changed(node: Node, loaded: Any, result: Any) -> Loaded:
    """A loaded input with another value; what came with a sample's own does not belong to that of another one."""
    members = result if isinstance(result, tuple) else (result,)
    ports = {name: port for name, port in loaded.ports.items() if name == "noise" or not fetches_input(node)}
    changed: Loaded = replace(loaded, value=type(loaded.value)(*members), ports=ports)
    return changed


def _of_stream(stream: Stream, applied: Applied, step: Compute, environment: Environment) -> Iterator[tuple[str, Tensor]]:
    """The inputs of a function from one stream, by the names of `ir.inputs`."""
    if applied in step.takes:
        output = environment[applied]
        if stream.pooled:
            yield stream.name, output if stream.encoder.heads else output.pooled
        entering = stream.entering if step.gives else ()  # inputs of modules, which the last function does not read
        own = (name for name in ("tokens", "codes", "assignment") if getattr(stream, name))
        for part in (*own, *entering):
            yield stream.input(part), getattr(output, part)
        if (stream.tokens or stream.words or entering) and output.mask is not None:
            yield stream.input("mask"), output.mask


def _of_module(
    output: ModuleOutput, applied: Applied, step: Compute, environment: Environment
) -> Iterator[tuple[str, Tensor]]:
    """The inputs of a function from a module applied to features, by the names of `ir.module_inputs`."""
    if applied in step.takes:
        features = environment[applied]
        if output.pooled:
            yield output.name, features if isinstance(features, Tensor) else features.pooled
        if output.patches:
            yield output.name, features if isinstance(features, Tensor) else features.pixels
        if output.logits:
            yield output.name, features.values
        if output.tokens:
            yield output.input("tokens"), features.tokens
            if features.mask is not None:
                yield output.input("mask"), features.mask
