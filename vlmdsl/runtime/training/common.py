"""The common parts of the runs of a comparison, checked for all of them before the first one begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data import requirements, source_facts, texts_of
from vlmdsl.runtime.data.mapping import EVALUATED
from vlmdsl.runtime.modules.towers import is_pretrained
from vlmdsl.runtime.tokenizer import Tokenizer, Tokenizers, train_tokenizer
from vlmdsl.runtime.training.assembly import Data, build_model, map_data, open_sources, read_tokenizers
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.tokenizers import check_towers, text_towers
from vlmdsl.schema import RunConfig

__all__ = ["Common", "prepare"]


@dataclass(frozen=True)
class Common:
    """Facts of the data, the tokenizer that was trained for all runs as JSON (None if none was: see `prepare`), and of each
    objective the part of `data.map` that is about its fields."""

    data: dict[str, Any]
    tokenizer: str | None
    maps: tuple[dict[str, str], ...]


def prepare(recipes: Sequence[Sequence[Objective]], config: RunConfig) -> Common:
    """Check that every objective of each recipe can be trained with this configuration, and make what all runs share.

    The tokenizer is trained on the texts that any of the recipes reads, so that all text towers are of one size and read the
    same tokens; none is where the configuration names one, or pretrained text towers read their own. Raises
    `DiagnosticError` with the faults of all objectives together.
    """
    objectives = [objective for own in recipes for objective in own]
    check_towers(objectives, config.model)
    train, val = open_sources(config)
    maps = _maps(objectives, config.data.map)
    configs = [config.model_copy(update={"data": config.data.model_copy(update={"map": own})}) for own in maps]
    opened: list[Data] = []
    faults: list[Diagnostic] = []
    for objective, own in zip(objectives, configs, strict=True):
        try:
            opened.append(map_data(objective.program, own, train, val))
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    trained = _tokenizer(objectives, config, opened)
    here = World(0, 1, torch.device("cpu"))
    for objective, data in zip(objectives, opened, strict=True):
        try:
            tokenizers = Tokenizers(trained) if trained else read_tokenizers(objective, config.model, data)
            build_model(objective, config, tokenizers, here, data.mapping.facts)
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    sources = {"train": source_facts(train)} | ({} if val is None else {"held_out": source_facts(val)})
    return Common(sources, None if trained is None else trained.to_json(), _joined(maps, recipes))


def _joined(maps: Sequence[Mapping[str, str]], recipes: Sequence[Sequence[Objective]]) -> tuple[dict[str, str], ...]:
    """The parts of a mapping by recipe, from those by objective."""
    parts = iter(maps)
    return tuple({name: column for _ in own for name, column in next(parts).items()} for own in recipes)


def _maps(objectives: Sequence[Objective], mapping: Mapping[str, str]) -> tuple[dict[str, str], ...]:
    """What of a mapping is for each objective: not the fields of others. A field of none is left to all, as a fault."""
    needs = [{need.field for need in requirements(objective.program)} for objective in objectives]
    foreign = [set().union(*needs) - own - set(EVALUATED) for own in needs]
    return tuple({name: column for name, column in mapping.items() if name not in others} for others in foreign)


def _tokenizer(objectives: Sequence[Objective], config: RunConfig, opened: Sequence[Data]) -> Tokenizer | None:
    """The tokenizer that is trained for all runs; None if none is."""
    encoders = [name for objective in objectives for name in text_towers(objective, config.model).values()]
    if config.model.tokenizer is not None or any(map(is_pretrained, encoders)):
        return None
    texts = list(_texts(objectives, opened))
    return train_tokenizer(texts, config.model.vocabulary) if texts else None


def _texts(objectives: Sequence[Objective], opened: Sequence[Data]) -> Iterator[str]:
    """The texts that the objectives read, those of equal columns once."""
    seen: set[tuple[object, ...]] = set()
    for objective, data in zip(objectives, opened, strict=True):
        for need in requirements(objective.program, views=False):
            columns = (data.mapping.columns.get(name) for name in (need.field, f"{need.field}_rewrites"))
            identity = (need.field, *columns)
            if need.kind in ("Text", "Phrases") and identity not in seen:
                seen.add(identity)
                yield from texts_of(data.train, data.mapping, [need.field])
