"""What an entry of `evidence.py` was made of: recipe, scale, and what its models are made of there."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from typing import Any

from columns import SHAPES_COLUMNS
from runs import SETTINGS, columns_of
from scale import Before, Scale, Steps
from scales import SCALES

from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import course, load_settings, parts_of, settings_of_call
from vlmdsl.ir.digest import digest

__all__ = ["identity", "modules_digest"]

FEW = f"shapes:samples={SETTINGS['train.batch']}"
"""Enough for a tokenizer, whose size is that of an embedding."""


def identity(recipe: str, steps: Steps) -> dict[str, Any]:
    """What an entry was made of; equal entries need not be made again."""
    scale = SCALES.get(recipe, Scale())
    lengths = {**vars(steps), **scale.steps}
    facts = {
        "digest": digest(*(built.written for built in build_flows(recipe))),
        "modules": modules_digest(recipe, scale),
        "knobs": {**scale.knobs, **scale.settings},
        "steps": lengths,
    }
    if (scale.scenes, scale.columns) != (Scale.scenes, {}):
        facts["data"] = {"scenes": scale.scenes, "columns": scale.columns}
    if scale.pair_columns:
        facts["pair_columns"] = scale.pair_columns
    if scale.text_alone:
        facts["text_alone"] = scale.text_alone
    if scale.stages:
        facts["stages"] = scale.stages
    if scale.stages_of_pairs:
        facts["stages_of_pairs"] = scale.stages_of_pairs
    if scale.scenes_of:
        facts["scenes_of"] = scale.scenes_of
    if scale.measured_on:
        facts["measured_on"] = scale.measured_on
    if scale.tried:
        facts["tried"] = scale.tried
    if scale.reported != Scale.reported:
        facts["reported"] = scale.reported
    if scale.drawings or scale.measures_drawings:
        facts["drawings"] = {"columns": scale.drawings, "measured": scale.measures_drawings}
    if scale.records > 1:
        facts["records"] = scale.records
    if scale.asked_of:
        facts["asked_of"] = scale.asked_of
    if scale.not_asked:
        facts["not_asked"] = sorted(scale.not_asked)
    if scale.before:
        facts["before"] = [_of_earlier_run(before) for before in scale.before]
    return dict(json.loads(json.dumps(facts)))  # as the file gives it back: lists for tuples


def _of_earlier_run(before: Before) -> dict[str, Any]:
    scale = SCALES[before.recipe]
    knobs = {**scale.knobs, **before.knobs, **scale.settings, **before.settings}
    return {"recipe": before.recipe, "steps": before.steps, "knobs": knobs}


def modules_digest(recipe: str, scale: Scale) -> str:
    """A digest of the names and types of the modules of a recipe's models, and of the shapes of their weights and which of
    them are trained: that of an entry changes with how a tower is built, which neither recipe nor settings say."""
    stages = import_module("vlmdsl.runtime.training.course")
    alone = import_module("vlmdsl.runtime.training.processes").World(0, 1, import_module("torch").device("cpu"))
    built = build_flows(recipe, knobs=scale.knobs)
    settings = {**SETTINGS, **{name: value for name, value in scale.settings.items() if name != "data.val"}}
    columns = columns_of(recipe, {**SHAPES_COLUMNS, **scale.columns})
    flags = settings_of_call([FEW], [], columns, settings, device="cpu")
    facts: list[object] = []
    parts = course(built, load_settings(None, (), flags, parts_of(built)), compiled=False)
    opened = stages.open_course(parts)
    tokenizers = stages.tokenizers_of_course(parts, opened)
    for part in parts:
        model = part.build(tokenizers, alone, stages.DataFacts.of(opened.stages[part.name]))
        facts.append([part.name, *sorted((name, type(module).__name__) for name, module in model.named_modules())])
        facts.append(sorted((name, list(weight.shape), weight.requires_grad) for name, weight in model.named_parameters()))
        facts.append(sorted((name, list(buffer.shape)) for name, buffer in model.named_buffers()))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
