"""Predicted tokens: their states, their targets, and the weights of the linear map from states to logits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.step import Environment
from vlmdsl.backends.torch.values import PredictedTokens
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import ModuleOutput, Node, Stream, Use, loaded_origin, parts_of, vocabulary_use
from vlmdsl.ir.operations.encoding import source_of
from vlmdsl.ir.schedule import Applied, Linear, Value
from vlmdsl.planning import applied_of
from vlmdsl.runtime.model.family import Families
from vlmdsl.runtime.model.text_decoders import split_text
from vlmdsl.runtime.modules import LinearHead
from vlmdsl.runtime.values import MaskedTokens, TextBatch, TowerInput, next_ids, token_ids
from vlmdsl.source import Span

__all__ = ["Predictions"]


@dataclass(frozen=True)
class Predictions:
    """Computes the values of predicted tokens in a step of the model.

    `head(use)` is the module from states to logits, `form(tower, kind)` the form in which a tower takes its fields,
    `families` are those of the modules whose tokens are predicted.
    """

    streams: Sequence[Stream]
    outputs: Sequence[ModuleOutput]
    head: Callable[[Use], Any]
    form: Callable[[str, str], Hashable]
    families: Families

    def check(self, without_logits: Collection[Node]) -> None:
        """Raises `DiagnosticError` (V0832) where the loss of one of these encoded texts is to make the product with the
        weight of a head that is more than one linear map."""
        for _, encoded in self._owners():
            use = vocabulary_use(applied_of(encoded).use)
            if encoded in without_logits and not isinstance(self.head(use), nn.Linear | LinearHead):
                problem = "predicts tokens by more than one linear map, so that their logits cannot be made in chunks"
                help = ("leave the lowering `chunked` of this term out, or ask for `dense`",)
                place, tower = Span("encoders", 0, 0), use.module.base.name
                raise DiagnosticError((TowerDoesNotFit.at(place, tower=tower, problem=problem, help=help),))

    def call(self, use: Use, value: Value, environment: Environment) -> PredictedTokens:
        """Logits of the predicted tokens, or without the product the states that the weight multiplies."""
        assert isinstance(value, Applied)
        tokens, head = self._tokens(value, environment), self.head(use)
        if not isinstance(head, nn.Module):
            raise ValueError("the tokens of a text are predicted, but its tower has no vocabulary")
        if not use.product:
            return tokens._replace(values=head(tokens.values, product=False))
        if isinstance(head, nn.Linear | LinearHead) and _is_scattered(head):
            states = tokens.values if isinstance(head, nn.Linear) else head(tokens.values, product=False)
            bias = None if head.bias is None else _whole(head.bias)
            return tokens._replace(values=nn.functional.linear(states, _whole(head.weight), bias))
        return tokens._replace(values=head(tokens.values))

    def linear(self, linear: Linear, environment: Environment) -> tuple[PredictedTokens, Tensor, Tensor | None]:
        """The states of predicted tokens, in the precision of the product, the weight [V, W] and the bias [V]."""
        head, value = self.head(linear.use), linear.value
        transformed = value.use == replace(linear.use, product=False)
        tokens = environment[value] if transformed else self._tokens(value, environment)
        states = tokens.values
        if not transformed and isinstance(head, LinearHead):  # that of a tower: the schedule has no step for it
            states = head(states, product=False)
        device = states.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            states = states.to(torch.get_autocast_dtype(device))
        return tokens._replace(values=states), _whole(head.weight), None if head.bias is None else _whole(head.bias)

    def logit_sizes(self, environment: Environment) -> dict[Node, int]:
        """The size of the logits in bytes, in float32 or wider, by encoded text, for heads that are one linear map."""
        sizes = {}
        for owner, encoded in self._owners():
            states = applied_of(encoded)
            head = self.head(vocabulary_use(states.use))
            if isinstance(head, nn.Linear | LinearHead):
                item = max(head.weight.element_size(), torch.float32.itemsize)
                sizes[encoded] = _count(owner, self._text(states, environment)) * head.weight.shape[0] * item
        return sizes

    def _owners(self) -> list[tuple[Stream | ModuleOutput, Node]]:
        """The encoded texts whose tokens are predicted, with their streams or module outputs."""
        streams = [(stream, stream.encode) for stream in self.streams if stream.vocabulary]
        return [*streams, *((output, output.node) for output in self.outputs if output.vocabulary)]

    def _text(self, states: Applied, environment: Environment) -> TowerInput:
        """The text of these states, in the form that its tower takes; before negatives are picked, a sample's own."""
        tower = self.families[states.use.module.family].text_tower(states)
        source = parts_of(source_of(states.source))[-1]
        loaded = environment[source if source in environment else loaded_origin(source)]
        text: TowerInput = loaded[self.form(tower, "Text")]
        return text

    def _tokens(self, states: Applied, environment: Environment) -> PredictedTokens:
        """The states and targets of the predicted tokens of a text; of the selected tokens only, if nothing reads the
        others.

        Raises ValueError if the tower has no states or the batch no selected tokens.
        """
        owner = next(owner for owner, encoded in self._owners() if applied_of(encoded) == states)
        last = self.families[states.use.module.family].predicted_states(environment[states])
        if last is not None and owner.next:
            assert isinstance(states.source, Node)
            return self._next(owner, states, last, environment)
        text = self._text(states, environment)
        masked, words = text.ports.get("masked"), text.value
        assert isinstance(words, TextBatch)
        if last is None or (owner.targets and masked is None):
            raise ValueError("the tokens of a text are predicted, but the batch or the tower has none")
        last = last[:, last.shape[1] - words.ids.shape[1] :]  # of a pair the text, which comes last
        if not isinstance(masked, MaskedTokens):
            return PredictedTokens(last, None, token_ids(words, None))
        if owner.asked_only:
            return PredictedTokens(*masked.selected(last))
        return PredictedTokens(last, masked.targets, token_ids(words, masked) if owner.ids else None)

    def _next(
        self, owner: Stream | ModuleOutput, states: Applied, last: Tensor, environment: Environment
    ) -> PredictedTokens:
        """The same where each state predicts the next token."""
        assert isinstance(owner, Stream)
        form = self.form(states.use.module.name, "Text")
        words, prefix, masked = split_text(owner.encode, environment, form)
        ids = token_ids(words, masked)
        targets = masked.targets if owner.targets and masked is not None else None
        return PredictedTokens(last, targets, ids if owner.ids else None, next_ids(ids, prefix)[:, : last.shape[1]])


def _count(owner: Stream | ModuleOutput, text: TowerInput) -> int:
    """How many tokens of a text are predicted."""
    masked = text.ports.get("masked")
    if isinstance(masked, MaskedTokens) and owner.asked_only and masked.places is not None:
        return masked.places.numel()
    return text.value[0].numel() if text.value[0] is not None else 0


def _is_scattered(head: nn.Linear | LinearHead) -> bool:
    """Whether the weights of a head are sharded (FSDP2) and a call of it does not gather them: a tied weight belongs to its
    tower, which gathers it only for its own calls."""
    if not hasattr(head.weight, "full_tensor"):
        return False
    from torch.distributed.fsdp import FSDPModule

    return not isinstance(head, FSDPModule)


def _whole(parameter: Any) -> Tensor:
    """The whole of a parameter that may be sharded (FSDP2). As for modules that FSDP2 calls, its gradient is the mean of the
    gradients of the processes."""
    if not hasattr(parameter, "full_tensor"):
        tensor: Tensor = parameter
        return tensor
    from torch.distributed.tensor import Partial  # few models are sharded

    mesh = parameter.device_mesh
    full: Tensor = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if full.requires_grad:
        full.register_hook(lambda gradient: gradient / mesh.size())  # `Partial` sums
    return full
