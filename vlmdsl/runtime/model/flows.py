"""The model of a stage with several flows: one set of modules, and the step of each flow over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vlmdsl.backends.torch.shared_numbers import SharedNumbers
from vlmdsl.runtime.model.model import VisionLanguageModel
from vlmdsl.runtime.model.parts import Parts
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import Batch

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput

__all__ = ["FlowModels"]


class FlowModels(nn.Module):
    """One `VisionLanguageModel` per flow, all over the same modules; each batch names its flow.

    Learned numbers and states are shared by name, and equal heads, fusion modules, decoders and teachers are one module.
    Weights have the same names as in the model of a single objective, so that stages can take them over from each other.
    Modules that a flow does not use get no gradient in its steps, so AdamW does not change them; teachers move in every
    step.

    Args:
        encoders: the towers of all flows, by name.
        objectives: the objective of each flow, by its name.
        steps: number of steps of the stage, for the schedules of teachers.
        lengths: lengths of the vectors in fields, by flow and field name.

    >>> import torch, vlmdsl
    >>> from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
    >>> from vlmdsl.runtime.values import Batch, ImageBatch
    >>> shape = VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=1)
    >>> flow = "flow {0} share 50% {{\\n minimize contrast({1})\\n}}\\n"
    >>> recipe = "recipe mine(a: Image, b: Image)\\n" + flow.format("one", "a, b") + flow.format("two", "b, a")
    >>> objectives = {flow: vlmdsl.compile(recipe, flow=flow, compiled=False) for flow in ("one", "two")}
    >>> model = FlowModels({"vision": VisionTransformer(shape, 4, ("pooled",))}, objectives)
    >>> images = {name: ImageBatch(torch.rand(6, 3, 8, 8)) for name in ("a", "b")}
    >>> model(Batch(images, torch.arange(6), list("012345"), flow="two")).terms.keys()
    dict_keys(['contrast'])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        objectives: Mapping[str, Objective],
        *,
        steps: int = 0,
        lengths: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        super().__init__()
        self.parts = Parts.of(encoders, [*objectives.values()], steps)
        self.encoders = self.parts.towers
        self.objective = SharedNumbers([*objectives.values()])
        self.parts.register(self)
        # A plain dictionary: the modules are registered above, under the names of checkpoints.
        self.models: dict[str, VisionLanguageModel] = {
            name: VisionLanguageModel(encoders, objective, steps=steps, lengths=(lengths or {}).get(name), parts=self.parts)
            for name, objective in objectives.items()
        }

    def train(self, mode: bool = True) -> FlowModels:
        """As for any module, except that frozen towers and heads stay in evaluation mode."""
        super().train(mode)
        for model in self.models.values():
            model.train(mode)
        return self

    def forward(self, batch: Batch) -> ObjectiveOutput:
        """The loss, terms and metrics of the flow of the batch."""
        output: ObjectiveOutput = self.models[batch.flow](batch)
        return output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FlowModels:
        """As for any module; also applies to the reference sets, which the models of the flows hold."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for model in self.models.values():
            model._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def after_step(self) -> None:
        """To call after an optimiser step: teachers move, learned numbers are clamped to their bounds."""
        self.parts.follow("after")
        self.objective.after_step()

    def compile_encoders(self) -> None:
        """Compile the towers and the modules on them with torch.compile, each once."""
        for module in dict.fromkeys(module for model in self.models.values() for module in model.units):
            module.compile()

    @property
    def notes(self) -> list[str]:
        """Notes about the towers to report before the first step, one sentence each."""
        return list(dict.fromkeys(note for model in self.models.values() for note in model.notes))
