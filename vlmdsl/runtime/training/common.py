"""What the runs of a comparison have in common: checked for all of them before the first one begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlmdsl.backends.torch import Objective
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data import FieldMapping, requirements, source_facts, texts_of
from vlmdsl.runtime.tokenizer import Tokenizer, train_tokenizer
from vlmdsl.runtime.training.assembly import Data, build_model, map_data, open_sources, tokenizer_for
from vlmdsl.runtime.training.processes import World
from vlmdsl.schema import RunConfig

__all__ = ["Common", "prepare"]


@dataclass(frozen=True)
class Common:
    """Facts of the data, and the tokenizer of all runs as JSON: None if the configuration names one, or no text is read."""

    data: dict[str, Any]
    tokenizer: str | None


def prepare(objectives: Sequence[Objective], config: RunConfig) -> Common:
    """Check that every objective can be trained with this configuration, and make what all runs share.

    The tokenizer is trained on the texts that any of the recipes reads, so that all text towers are of one size and read the
    same tokens. Raises `DiagnosticError` with the faults of all objectives together.
    """
    train, val = open_sources(config)
    found: list[Data] = []
    faults: list[Diagnostic] = []
    for objective in objectives:
        try:
            found.append(map_data(objective.program, config, train, val))
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    tokenizer, trained = _tokenizer(objectives, config, found)
    here = World(0, 1, torch.device("cpu"))
    for objective, data in zip(objectives, found, strict=True):
        try:
            build_model(objective, config, tokenizer, here, data.mapping.region_length)
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    sources = {"train": source_facts(train)} | ({} if val is None else {"held_out": source_facts(val)})
    return Common(sources, tokenizer.to_json() if trained else None)


def _tokenizer(objectives: Sequence[Objective], config: RunConfig, found: Sequence[Data]) -> tuple[Tokenizer, bool]:
    """The tokenizer of all runs, and whether it was trained here."""
    if config.model.tokenizer is not None or config.model.text_encoder.startswith("hf:"):
        return tokenizer_for(objectives[0].program, config.model, found[0]), False
    needs = [need for objective in objectives for need in requirements(objective.program, views=False)]
    texts = list(dict.fromkeys(need.field for need in needs if need.kind == "Text"))
    columns = {field: names for data in found for field, names in data.mapping.columns.items()}
    merged = FieldMapping(columns, {})
    return train_tokenizer(texts_of(found[0].train, merged, texts), config.model.vocabulary), bool(texts)
