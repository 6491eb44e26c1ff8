"""Modules that a caller passes to an objective, which applies them to features: an objective without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from vlmdsl.backends.torch.applied import INPUTS
from vlmdsl.backends.torch.values import PredictedTokens, TokenFeatures
from vlmdsl.ir import CODES, OUTPUTS, ModuleOutput, Node, Stream, kept_inputs, module_outputs, parts_of
from vlmdsl.ir.operations.mining import fetches_input
from vlmdsl.ir.operations.modules import APPLY, DROPPED, PIXELS, REPLACED
from vlmdsl.ir.schedule import Applied, Apply, Linear, Schedule, Value
from vlmdsl.planning import applied_of

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective

__all__ = ["GivenModules", "applied_modules"]


def applied_modules(schedule: Schedule) -> tuple[str, ...]:
    """The names of the modules that a schedule applies to what it computes: decoders, linear maps of patches, fusion, heads
    and vocabularies on it, and the towers, with their heads, of images and texts that are picked."""

    def applies(call: Apply) -> bool:
        module = call.use.module
        return module.family == "linear" or module.base.family != "tower" or any(map(_is_picked, call.values))

    return tuple(dict.fromkeys(call.use.name for call in schedule.calls if applies(call)))


def _is_picked(value: Value) -> bool:
    """Whether a module takes, perhaps through others, the image or the text of samples that were picked."""
    return any(fetches_input(part) for part in parts_of(value.source if isinstance(value, Applied) else value))


class _Pixels(NamedTuple):
    """Images [b, 3, H, W]."""

    pixels: Tensor


@dataclass(frozen=True)
class _Input:
    """An image or a text among the features, as towers take it."""

    value: _Pixels | TokenFeatures
    ports: Mapping[str, object] = field(default_factory=dict)


class GivenModules:
    """Calls the modules of a caller; the outputs of towers and their heads are among its features.

    A fusion module is called with (states [n, L, W], mask [n, L], context [n, K, C], context mask or None), for texts alone
    with the first two, and gives what has `pooled [n, D]` and `tokens [n, L, W]`; a head with vectors [n, D]; a vocabulary
    with states [n, L, W], and with `product=False` where the loss makes the product with its `weight` and `bias` itself. A
    decoder is called with the states [n, K, W] of the patches that a tower saw, and gives pixels [n, P, C] of all patches,
    or what has their states as `tokens [n, P, W]`: which of them were seen is for the caller to know. A linear map is
    called, like a vocabulary, with states [n, P, W]. A tower of picked images or texts is called with pixels [n, 3, H, W] or
    ids [n, L] and their mask, and gives what has the outputs that are read of it. A pooler is called with (states [n, K, C],
    mask or None) and gives what has `pooled [n, D]` and `tokens [n, Q, W]`.
    """

    def __init__(
        self, objective: Objective, modules: Mapping[str, Callable[..., Any]], features: Mapping[str, Tensor]
    ) -> None:
        self._objective, self._modules, self._features = objective, modules, features
        self._streams = {applied_of(stream.encode): stream for stream in objective.streams}
        self._outputs = {output.node: output for output in module_outputs(objective.program)}

    def environment(self) -> dict[Value, Any]:
        """The plain fields and draws of a step, by their nodes."""
        loaded = self._objective.schedule.load.values
        names, kept = self._objective.passed, kept_inputs(self._objective.program)
        values: dict[Value, Any] = {node: {None: self._kept(name)} for node, name in kept.items()}
        plain = (node for node in loaded if names[node] in self._features and node not in values)
        return values | {node: self._features[names[node]] for node in plain}

    def _kept(self, name: str) -> _Input:
        tensor, mask = self._features[name], self._features.get(f"{name}_mask")
        return _Input(_Pixels(tensor) if mask is None else TokenFeatures(tensor, mask))

    def inputs(self, apply: Apply, environment: Mapping[Value, Any]) -> list[Any]:
        """The arguments of modules on features; the inputs of towers are unknown, but their features are passed."""
        arguments = INPUTS.get(apply.use.module.family)
        if arguments is not None:
            return [arguments(value, environment) for value in apply.values]
        return [_picked_input(output, environment) if _is_picked(output) else output for output in apply.outputs]

    def call_tower(self, apply: Apply, inputs: Sequence[Any]) -> list[Any]:
        """The features of towers, as passed; those of modules on features from calls."""
        if apply.use.module.family != "tower":
            module = self._modules[apply.use.name]
            return [module(*arguments) for arguments in inputs]
        tower = self._modules.get(apply.use.name)
        return [tower(*entry) if tower and not isinstance(entry, Applied) else self._of_tower(entry) for entry in inputs]

    def images(self, output: Applied, environment: Mapping[Value, Any]) -> dict[str, Tensor]:
        """The pixels that a tower was given, and which of their patches were dropped or replaced: among the features."""
        stream = self._streams[output]
        names = {part: stream.input(part) for part in (PIXELS, DROPPED, REPLACED) if getattr(stream, part)}
        return {part: self._features[name] for part, name in names.items()}

    def segments(self, output: Applied, environment: Mapping[Value, Any]) -> Tensor:
        """The segments of the patches of images: among the features."""
        return self._features[self._streams[output].input("segments")]

    def call_whole(self, apply: Apply, environment: Mapping[Value, Any]) -> list[Any]:
        """Linear maps of patches, and heads and vocabularies on modules on features; on towers their outputs are among the
        features."""
        if apply.use.module.family == "linear":
            linear: Any = self._modules[apply.use.name]
            states = [INPUTS["linear"](value, environment) for value in apply.values]
            product = {} if apply.use.product else {"product": False}
            return [PredictedTokens(linear(*one, **product), None) for one in states]
        if apply.use.module.base.family == "tower":
            return [
                self._modules[apply.use.name](_pooled(output.value, environment))
                if _is_picked(output)
                else self._whole_of_tower(output, apply)
                for output in apply.outputs
            ]
        module = self._modules[apply.use.name]
        if apply.use.module.family == "head":
            return [module(*INPUTS["head"](value, environment)) for value in apply.values]
        module = module if apply.use.product else partial(module, product=False)
        return [self._predicted(module, value, environment) for value in apply.values]

    def linear(self, linear: Linear, environment: Mapping[Value, Any]) -> tuple[PredictedTokens, Tensor, Tensor | None]:
        """The states of tokens of a tower, and the weights, are among the features; of fusion its vocabulary has these."""
        value = linear.value
        if linear.use.module.family == "linear" or linear.use.module.base.family != "tower":
            module: Any = self._modules[linear.use.name]
            return environment[value], module.weight, module.bias
        stream = self._streams[value]
        weights = (self._features.get(f"{stream.linear}_{part}") for part in ("weight", "bias"))
        weight, bias = weights
        assert weight is not None, "features are checked"
        return self._predicted_tokens(self._features[stream.input("predicted")], stream), weight, bias

    def logit_sizes(self, environment: Mapping[Value, Any]) -> dict[Node, int]:
        """Not known: the caller gives logits, or what they are a product of."""
        return {}

    def words(self, output: Applied, environment: Mapping[Value, Any]) -> Tensor:
        """Which words of a text name each region, as the caller gives it."""
        return self._features[self._streams[output].input("words")]

    def _of_tower(self, output: Applied) -> SimpleNamespace:
        stream = self._streams.get(output)
        if stream is None:  # only heads on it are read
            return SimpleNamespace(**dict.fromkeys((*OUTPUTS, "mask")))
        names = {part: stream.input(part) for part in (*OUTPUTS, "mask")}
        return SimpleNamespace(**{part: self._features.get(name) for part, name in names.items()})

    def _whole_of_tower(self, output: Applied, apply: Apply) -> Any:
        below = output.value if apply.use.module.family == "vocabulary" else output
        stream = self._streams.get(below) if isinstance(below, Applied) else None
        if stream is None:
            return None
        if apply.use.module.family == "head":
            return self._features[stream.name]
        return self._predicted_tokens(self._features[stream.input("vocabulary")], stream)

    def _predicted(self, module: Callable[..., Any], value: Value, environment: Mapping[Value, Any]) -> PredictedTokens:
        assert isinstance(value, Applied)
        assert value.source.operation is APPLY
        return self._predicted_tokens(module(environment[value].tokens), self._outputs[value.source])

    def _predicted_tokens(self, logits: Tensor, owner: Stream | ModuleOutput) -> PredictedTokens:
        return PredictedTokens(logits, *(self._features.get(owner.input(output)) for output in CODES.values()))


def _picked_input(output: Applied, environment: Mapping[Value, Any]) -> tuple[Tensor, ...]:
    """The arguments of a tower: of each part of its input the tensors."""
    return tuple(tensor for part in parts_of(output.source) for tensor in environment[part][None].value)


def _pooled(value: Value, environment: Mapping[Value, Any]) -> Tensor:
    """The vectors that a head takes: those of a tower, or of another head."""
    output = environment[value]
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooled
    return vectors
