"""What a plan says of a step is what runs: the calls of modules, in order, with their samples and tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import (
    ALBEF_CORE,
    DATA,
    DROPPED_CONTEXT,
    SETTINGS,
    columns_of,
    hyper_parameters_of,
    program_of,
    with_tiny_towers,
)
from vlmdsl.api.driver import build
from vlmdsl.ir import Program
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import MergedFusion
from vlmdsl.runtime.modules.heads import MultilayerHead
from vlmdsl.runtime.modules.towers import Encoder

SAMPLES, LENGTH = 8, 12
GRID = 2
"""Patches along a side of the tiny tower's images."""

ONE = "vlo 1\nrecipe one(image: Image, text: Text)\nencoder one = shared(vision, language)\n"
TWO = "vlo 1\nrecipe two(image: Image, text: Text)\n"
OTHERS = {
    "fusion": ALBEF_CORE,
    "contexts": DROPPED_CONTEXT,
    "multi_crop": TWO + "minimize contrast(multi_crop(image, n=2, small=2), text)\n",
    "drop": TWO + "minimize contrast(drop(image, share=50%), text) + contrast(image, text)\n",
    "drop_of_crops": TWO + "minimize contrast(drop(multi_crop(image, n=1, small=1, small_side=75%), share=25%), text)\n",
    "join": ONE + "minimize contrast(one(join(image, text)), one(text))\n",
    "blend": ONE + "minimize contrast(one(blend(image, text, by=0.3)), one(join(image, text)))\n",
    "render": TWO + "minimize contrast(image, vision(render(text)))\n",
    "teacher": TWO + "encoder elder = ema(vision)\nminimize contrast(image, stop(elder(augment(image))))\n",
    "heads": TWO
    + "encoder one = project(vision, out=6)\nencoder other = predict(one, hidden=5)\n"
    + "let views = augment(image, n=2)\nminimize contrast(other(views), stop(one(views[0]))) + contrast(image, text)\n",
    "frozen_beside_learned": TWO + "minimize contrast(image, text) + contrast(frozen(vision)(image), text)\n",
    "mixed": TWO + "let lam = beta(1, 1)\nminimize contrast(mix(image, by=1 - lam), mix(text, by=lam))\n",
}


class Called(NamedTuple):
    """One call of a module: `tokens` are those of a sample that a tower, a decoder or a fusion module sees."""

    module: str
    samples: int
    tokens: int | None


def planned(recipe: str, knobs: dict[str, Any]) -> list[Called]:
    plan = vlmdsl.plan(recipe, knobs=knobs, batch=SAMPLES, image_tokens=GRID**2, text_tokens=LENGTH)
    return [Called(call.module.split()[0], call.samples, call.tokens) for call in plan.calls]


class Recorder:
    """Notes the calls of all towers, teachers, heads and vocabularies of a model."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self.calls: list[Called] = []
        for name, tower in model.encoders.items():
            self._watch_tower(name, tower)
        for head in model.heads.modules():
            self._watch_head(head)
        for name, module in model.fusions.parts.items():
            self._watch(module, partial(_fusion_call, name, GRID**2 if isinstance(module, MergedFusion) else 0))
        for module in model.vocabularies.parts.values():
            self._watch(module, lambda arguments: Called("vocabulary", len(arguments[0]), None))
        for name, linear in model.linear_heads.parts.items():
            self._watch(linear, partial(_linear_call, name.split("_")[-1]))
        for name, token_head in model.token_heads.parts.items():
            self._watch(token_head, partial(_linear_call, name))
        for name, decoder in model.decoders.parts.items():
            self._watch(decoder, partial(_decoder_call, name, len(decoder.positions)))
        for name, pooler in model.poolers.parts.items():
            self._watch(pooler, partial(lambda name, arguments: Called(name, len(arguments[0]), None), name))
        if model.teachers is not None:
            for name, tower in model.teachers.copies.items():
                own = name.removesuffix("_2")
                if own in model.encoders:
                    self._watch_tower(own, tower)
                else:
                    self._watch(tower, partial(_fusion_call, own, GRID**2 if isinstance(tower, MergedFusion) else 0))
            for module in model.teachers.vocabularies.values():
                self._watch(module, lambda arguments: Called("vocabulary", len(arguments[0]), None))
            for name, linear in model.teachers.linear_heads.items():
                self._watch(linear, partial(_linear_call, name.split("_")[-1]))
            for head in model.teachers.heads.modules():
                self._watch_head(head)

    def _watch_tower(self, name: str, tower: nn.Module) -> None:
        assert isinstance(tower, Encoder)
        tower.register_forward_hook(
            lambda _tower, arguments, keywords, _output: self.calls.append(
                _tower_call(name, getattr(tower.image_format, "patch", None), arguments, keywords)
            ),
            with_kwargs=True,
        )
        if tower.vocabulary_head is not None:
            self._watch(tower.vocabulary_head, lambda arguments: Called("vocabulary", len(arguments[0]), None))

    def _watch_head(self, module: nn.Module) -> None:
        if isinstance(module, MultilayerHead):
            name = module.head.name
            self._watch(module, lambda arguments: Called(name, sum(map(len, arguments[0])), None))

    def _watch(self, module: nn.Module, called: Callable[[tuple[Any, ...]], Called]) -> None:
        module.register_forward_hook(lambda _, arguments, __: self.calls.append(called(arguments)))


def _fusion_call(name: str, patches: int, arguments: tuple[Tensor, ...]) -> Called:
    return Called(name, len(arguments[0]), arguments[0].shape[1] + patches)


def _decoder_call(name: str, patches: int, arguments: tuple[Tensor, ...]) -> Called:
    return Called(name, len(arguments[0]), patches)


def _linear_call(name: str, arguments: tuple[Tensor, ...]) -> Called:
    return Called(name, len(arguments[0]), None)


def _tower_call(name: str, patch: int | None, arguments: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> Called:
    values, words = arguments[0], keywords.get("words")
    if values.dim() == 2:
        return Called(name, len(values), values.shape[1])
    if values.dim() == 3:
        return Called(name, len(values), None)
    keep = keywords.get("keep")
    patches = (values.shape[2] // (patch or 16 // GRID)) ** 2 if keep is None else keep.shape[1]
    if words is None:
        return Called(name, len(values), patches)
    text = words.shape[1]
    return Called(name, len(values), max(patches, text) if "share" in keywords else patches + text)


class StepTakenError(Exception):
    """The end of a run: the forward pass of its first step is all that these tests look at."""


def executed(recipe: str, program: Program, knobs: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> list[Called]:
    """The calls of one training step, on batches of the size and lengths that the plan was made for."""
    recorders: list[Recorder] = []
    forward = VisionLanguageModel.forward

    def recorded(model: VisionLanguageModel, batch: Any) -> Any:
        recorders.append(Recorder(model))
        forward(model, batch)
        raise StepTakenError

    patch.setattr(VisionLanguageModel, "forward", recorded)
    settings = SETTINGS | {"data.map": columns_of(program), "train.batch": SAMPLES, "model.text_length": LENGTH}
    settings |= {"evaluation.retrieval": False, "evaluation.zero_shot": False, "evaluation.captions": 0}
    trainer = vlmdsl.Trainer(recipe, data=[DATA], steps=1, knobs=knobs, settings=settings, out=folder / "run")
    with pytest.raises(StepTakenError):
        trainer.fit()
    (recorder,) = recorders
    return recorder.calls


@pytest.mark.parametrize("recipe", [*OBJECTIVES, *OTHERS])
def test_the_calls_of_a_step_are_those_of_its_plan(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    text = {**OBJECTIVES, **OTHERS}[recipe]
    knobs = hyper_parameters_of(text) if recipe in OBJECTIVES else {}
    program = program_of(text) if recipe in OBJECTIVES else build(text).planned
    calls = executed(text, program, knobs, tmp_path, monkeypatch)
    assert calls == planned(text, knobs)
