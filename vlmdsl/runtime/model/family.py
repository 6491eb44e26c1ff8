"""What the model asks of a family of modules: which there are, how they are called, and on what."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias

from torch import Tensor, nn

from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Module, ModuleOutput, Program, Stream, Use, module_outputs, streams, uses_of, vocabulary_use
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.schedule import Applied, Apply, Value
from vlmdsl.planning import applied_of
from vlmdsl.runtime.values import TowerInput, call_together

if TYPE_CHECKING:
    from vlmdsl.runtime.model.predictions import Predictions

__all__ = ["Families", "ModuleFamily", "Needs", "OfModel"]


@dataclass(frozen=True)
class Needs:
    """What programs encode and apply, and all uses of modules, in the order of first use."""

    streams: tuple[Stream, ...]
    outputs: tuple[ModuleOutput, ...]
    uses: tuple[Use, ...]

    @classmethod
    def of(cls, programs: Iterable[Program]) -> Needs:
        programs = list(programs)
        encoded = tuple(stream for program in programs for stream in streams(program))
        outputs = tuple(output for program in programs for output in module_outputs(program))
        uses = [use for encoder in dict.fromkeys(stream.encoder for stream in encoded) for use in uses_of(encoder)]
        uses += [use_of(output.node) for output in outputs]
        predicted = [applied_of(stream.encode) for stream in encoded if stream.vocabulary]
        predicted += [applied_of(output.node) for output in outputs if output.vocabulary]
        return cls(encoded, outputs, (*uses, *(vocabulary_use(states.use) for states in predicted)))

    def modules(self, family: str) -> tuple[Module, ...]:
        """The modules of a family."""
        return tuple(dict.fromkeys(use.module for use in self.uses if use.module.family == family))


class OfModel(Protocol):
    """What a family may ask the model that it is part of."""

    streams: list[Stream]

    @property
    def predictions(self) -> Predictions: ...

    def part(self, use: Use) -> nn.Module:
        """The network of a use, or its teacher's."""
        ...

    def form(self, tower: str, kind: str) -> Hashable:
        """The form in which a tower takes fields of a kind; None where it states none."""
        ...

    def taken(self, output: Applied, environment: Environment) -> TowerInput:
        """What a tower took for an output."""
        ...


class ModuleFamily(nn.Module):
    """The modules of one family of a model, shared by all of its objectives.

    One file of `runtime.model` and one row of `parts.FAMILIES` is a family. A family whose modules take samples one by one
    (`ir.uses.PER_SAMPLE`) says what the `inputs` of a value are; one whose modules may depend on the whole batch
    implements `call_whole`. The rest has defaults.
    """

    stored_as: ClassVar[str]
    """The name of the family in the names of weights."""

    parts: Any
    """The networks by name, a `NamedModules`."""

    @classmethod
    def of(cls, needs: Needs, below: Families) -> Self:
        """Builds the modules that programs need, on modules of the families `below` it in `parts.FAMILIES`.

        Raises `DiagnosticError` (V0832) where the modules below do not fit.
        """
        raise NotImplementedError

    def part(self, module: Module) -> nn.Module:
        """The network of a module."""
        network: nn.Module = self.parts[module.name]
        return network

    def length(self, module: Module) -> int | None:
        """The length of the vectors that a module yields; None where it yields none."""
        return None

    def token_length(self, module: Module) -> int | None:
        """The length of its tokens: that of its vectors unless a family says otherwise; None where it yields none."""
        return self.length(module)

    def inputs(self, value: Value, environment: Environment, use: Use, model: OfModel) -> TowerInput:
        """The inputs of a module for one value of a call: what is sliced along the samples, with what comes with it."""
        raise NotImplementedError

    def call(self, apply: Apply, inputs: Sequence[TowerInput], model: OfModel) -> list[Any]:
        """The features of each input, named tuples of tensors, from one call of the module."""
        return call_together(model.part(apply.use), inputs)

    def call_whole(self, apply: Apply, environment: Environment, model: OfModel) -> list[Any]:
        """The outputs for all values of a call, of modules that are not per sample."""
        raise NotImplementedError

    def predicted_states(self, output: Any) -> Tensor | None:
        """The states [b, L, W] of the tokens that a vocabulary predicts from an output; None if it has none."""
        states: Tensor | None = output.tokens
        return states

    def text_tower(self, states: Applied) -> str:
        """The tower in whose form the text was tokenised of which a module yields these states."""
        raise NotImplementedError

    @property
    def units(self) -> list[nn.Module]:
        """The modules that a step calls, inner ones first: one FSDP2 unit and one compiled function each."""
        return [*self.parts.values()]


Families: TypeAlias = Mapping[str, ModuleFamily]
"""The families of a model by name: those of `ir.uses.Family`."""
