"""The attentional poolers of a model, and their inputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from vlmdsl.backends.torch.applied import pooler_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Module, ModuleOutput, Node, Use, encoder_of
from vlmdsl.ir.modules import PoolerSettings
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.schedule import Value
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.modules import AttentionalPooler, SequenceFeatures
from vlmdsl.runtime.values import TowerInput
from vlmdsl.source import Span

__all__ = ["PooledStates", "Pooler", "Poolers"]


class PooledStates(NamedTuple):
    """What a pooler attends to: `states [b, K, C]`, with their `mask [b, K]`, None where all are real."""

    states: Tensor
    mask: Tensor | None

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis K."""
        return ("states", "mask")


class Pooler(nn.Module):
    """A pooler, and where pooled features are read the linear map of its first query to `dimension` numbers."""

    def __init__(self, settings: PoolerSettings, context_width: int, dimension: int | None) -> None:
        super().__init__()
        self.attention = AttentionalPooler(settings, context_width)
        width = settings.width or context_width
        self.pooled_projection = None if dimension is None else nn.Linear(width, dimension, bias=False)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> SequenceFeatures:
        """One feature per query of `states [b, K, C]`, and pooled features."""
        tokens = self.attention(states, mask)
        pooled = None if self.pooled_projection is None else self.pooled_projection(tokens[:, 0])
        return SequenceFeatures(tokens, None, pooled)


class Poolers(ModuleFamily):
    """One network for each pooler of the programs.

    Raises `DiagnosticError` (V0832) where uses of one pooler differ in their sizes, or heads do not divide its width.
    """

    stored_as = "poolers"

    def __init__(self) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._widths: dict[str, int] = {}
        self._dimensions: dict[str, int] = {}
        self._shapes: dict[str, tuple[PoolerSettings, int]] = {}

    @classmethod
    def of(cls, needs: Needs, below: Families) -> Poolers:
        own, towers = cls(), below["tower"]
        assert isinstance(towers, Towers)
        pooled = {use_of(output.node).module for output in needs.outputs if output.pooled}
        for output in needs.outputs:
            module = use_of(output.node).module
            if isinstance(module.settings, PoolerSettings):
                own._register(module, module.settings, output, towers, module in pooled)
        return own

    def length(self, module: Module) -> int:
        return self._dimensions[module.name]

    def token_length(self, module: Module) -> int:
        return self._widths[module.name]

    def inputs(self, value: Value, environment: Environment, use: Use, model: OfModel) -> TowerInput:
        """The states of an image, or the features of a pooler below."""
        return TowerInput(PooledStates(*pooler_input(value, environment)))

    def _register(
        self, module: Module, settings: PoolerSettings, output: ModuleOutput, towers: Towers, pooled: bool
    ) -> None:
        below, tower = output.node.inputs[0].inputs[0], _tower(output.node)
        encoder = towers.encoder(tower)
        context_width = encoder.states_width if below.operation is ENCODE else self._widths[use_of(below).module.name]
        width, name = settings.width or context_width, module.name
        if width % (settings.heads or 1):
            problem = f"has states of {width} numbers, which {settings.heads} heads of `{name}` do not divide evenly"
            raise _unfit(tower, problem, "set `heads` of `pool` to a divisor, or leave it out")
        if name not in self.parts:
            self._widths[name], self._dimensions[name] = width, encoder.dimension
            self._shapes[name] = (settings, context_width)
            self.parts[name] = Pooler(settings, context_width, encoder.dimension if pooled else None)
        elif self._shapes[name] != (settings, context_width):
            raise _unfit(tower, f"shares the pooler `{name}` with a use of other sizes", "give each its own `name`")


def _tower(node: Node) -> str:
    while node.operation is not ENCODE:
        node = node.inputs[0]
    return encoder_of(node).tower


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
