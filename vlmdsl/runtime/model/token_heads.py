"""The heads on tokens of a model, and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from vlmdsl.backends.torch.applied import token_head_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Module, Node, Use, encoder_of, uses_of
from vlmdsl.ir.modules import TokenHeadSettings
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.ir.schedule import Apply, Value
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.modules import TokenHead
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import TowerInput, call_together
from vlmdsl.source import Span

__all__ = ["TokenBatch", "TokenHeads"]


class TokenBatch(NamedTuple):
    """Tokens `tokens [b, L, D]` with their mask `mask [b, L]`, None where all are real."""

    tokens: Tensor
    mask: Tensor | None = None

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis L."""
        return ("tokens", "mask")


class TokenHeads(ModuleFamily):
    """One network per name of a head on tokens. Raises `DiagnosticError` (V0832) where one is for tokens of two lengths."""

    stored_as = "token_heads"

    def __init__(self) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._shapes: dict[str, tuple[TokenHeadSettings, int]] = {}

    @classmethod
    def of(cls, needs: Needs, below: Families) -> TokenHeads:
        own = cls()
        for output in needs.outputs:
            module = use_of(output.node).module
            if isinstance(module.settings, TokenHeadSettings):
                own._register(module, module.settings, own._entering(output.node.inputs[0], below))
        return own

    def length(self, module: Module) -> int:
        settings, entering = self._shapes[module.name]
        return settings.out or entering

    def inputs(self, value: Value, environment: Environment, use: Use, model: OfModel) -> TowerInput:
        """The tokens, with their mask."""
        assert isinstance(value, Node)
        return TowerInput(TokenBatch(*token_head_input(value, environment)))

    def call(self, apply: Apply, inputs: Sequence[TowerInput], model: OfModel) -> list[EncodedFeatures]:
        """The numbers of each token, from one call for all inputs of equal shape."""
        head = model.part(apply.use)
        return call_together(lambda tokens, mask: EncodedFeatures(tokens=head(tokens, mask), mask=mask), inputs)

    def _entering(self, tokens: Node, below: Families) -> int:
        """The length of the tokens that a head takes."""
        node = tokens
        while node.operation not in (ENCODE, APPLY):
            node = node.inputs[0]
        if node.operation is ENCODE:
            length = below["tower"].length(uses_of(encoder_of(node))[0].module)
        else:
            module = use_of(node).module
            family = self if module.family == "token_head" else below[module.family]
            length = family.token_length(module)
        assert length is not None, "what a head on tokens stands on yields tokens"
        return length

    def _register(self, module: Module, settings: TokenHeadSettings, entering: int) -> None:
        shape = (settings, entering)
        if module.name not in self.parts:
            self.parts[module.name] = TokenHead(settings, entering)
            self._shapes[module.name] = shape
        elif shape != self._shapes[module.name]:
            place, problem = Span("encoders", 0, 0), "has tokens of another length than others of the same head"
            help = ("give each a head of its own: `name=`",)
            raise DiagnosticError((TowerDoesNotFit.at(place, tower=module.name, problem=problem, help=help),))
