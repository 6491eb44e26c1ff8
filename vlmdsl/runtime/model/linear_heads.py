"""The linear maps of a model from states of patches to logits over the entries of a codebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from vlmdsl.backends.torch.applied import patches_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.backends.torch.values import PredictedTokens
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Module, ModuleOutput, Node, encoder_of
from vlmdsl.ir.modules import LinearSettings
from vlmdsl.ir.operations.modules import patches_of, use_of
from vlmdsl.ir.schedule import Apply, Value
from vlmdsl.planning import applied_of
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.modules import LinearHead
from vlmdsl.runtime.values import ImageBatch, ImageFormat
from vlmdsl.source import Span

__all__ = ["LinearHeads"]


class LinearHeads(ModuleFamily):
    """One network for each linear map of the programs on the same module below it.

    Raises `DiagnosticError` (V0832) if a tower has no separate patches, or maps of one name on it differ.
    """

    stored_as = "linear_heads"

    def __init__(self) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._settings: dict[str, LinearSettings] = {}

    @classmethod
    def of(cls, needs: Needs, below: Families) -> LinearHeads:
        own, towers = cls(), below["tower"]
        assert isinstance(towers, Towers)
        for output in needs.outputs:
            module = use_of(output.node).module
            if isinstance(module.settings, LinearSettings):
                tower = encoder_of(patches_of(output.node)).tower
                width = towers.encoder(tower).states_width
                if module.base.family == "fusion":
                    width = below["fusion"].length(module.base) or 0
                own._register(module, module.settings, tower, towers.encoder(tower).image_format, width)
        return own

    def part(self, module: Module) -> LinearHead:
        """The network of a linear map."""
        network = self.parts[_name(module)]
        assert isinstance(network, LinearHead)
        return network

    def call_whole(self, apply: Apply, environment: Environment, model: OfModel) -> list[PredictedTokens]:
        """The logits of each value, or the states that the weight multiplies."""
        head = model.part(apply.use)
        return [
            PredictedTokens(head(_states(value, environment, model), product=apply.use.product), None)
            for value in apply.values
        ]

    def logit_sizes(
        self, outputs: Iterable[ModuleOutput], environment: Environment, model: OfModel
    ) -> Iterator[tuple[Node, int]]:
        """The linear maps of a program with the size of their logits in bytes, in float32 or wider."""
        for output in outputs:
            module = use_of(output.node).module
            if module.family == "linear":
                weight = self.part(module).weight
                samples, patches = _sizes(output.node, environment, model)
                yield output.node, samples * patches * weight.shape[0] * max(weight.element_size(), torch.float32.itemsize)

    def _register(self, module: Module, settings: LinearSettings, tower: str, form: ImageFormat | None, width: int) -> None:
        name = _name(module)
        if form is None or form.patch is None or not width:
            raise _unfit(tower, "has no separate patches of its images, so none can be predicted")
        if name not in self.parts:
            self.parts[name], self._settings[name] = LinearHead(settings, width, settings.size), settings
        elif settings != self._settings[name]:
            help = "give each its own: `linear(..., name=...)`"
            raise _unfit(tower, f"shares the linear map `{module.name}` with one of another size or form", help)


def _states(value: Value, environment: Environment, model: OfModel) -> Tensor:
    """The states of patches, which come last."""
    assert isinstance(value, Node)
    (states,) = patches_input(value, environment)
    _, patches = _sizes(value, environment, model)
    return states[:, states.shape[1] - patches :]


def _sizes(node: Node, environment: Environment, model: OfModel) -> tuple[int, int]:
    """The number of images of a linear map, and of patches of each."""
    output = applied_of(patches_of(node))
    taken, form = model.taken(output, environment).value, model.form(output.use.module.name, "Image")
    assert isinstance(taken, ImageBatch)
    assert isinstance(form, ImageFormat)
    return len(taken.pixels), form.patches_of(taken.pixels)


def _name(module: Module) -> str:
    return f"{module.base.name}_{module.name}"


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
