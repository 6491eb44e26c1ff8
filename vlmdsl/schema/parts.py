"""Settings of single stages and flows, and the configuration of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from vlmdsl.diagnostics import closest, suggestion
from vlmdsl.schema.run import RunConfig

__all__ = ["PARTS", "Parts", "config_of", "unknown_parts"]

PartKind: TypeAlias = Literal["stages", "flows"]
PARTS: tuple[PartKind, PartKind] = ("stages", "flows")
Parts: TypeAlias = Mapping[PartKind, Sequence[str]]
"""The names of the stages and flows that a recipe has."""

_Section = TypeVar("_Section", bound=BaseModel)


def config_of(config: RunConfig, stage: str = "", flow: str = "") -> RunConfig:
    """The configuration of a flow of a stage: that of the run, overridden by the stage, then by the flow.

    >>> from vlmdsl.schema import load_config
    >>> config, _ = load_config(overrides=["train.batch=8", "stages.second.train.steps=7"])
    >>> [(config_of(config, stage).train.steps, config_of(config, stage).train.batch) for stage in ("first", "second")]
    [(400, 8), (7, 8)]
    """
    for part in (config.stages.get(stage), config.flows.get(flow)):
        if part is not None:
            changed = {name: _changed(getattr(config, name), getattr(part, name)) for name in part.model_fields_set}
            config = config.model_copy(update=changed)
    return config


def unknown_parts(config: RunConfig, parts: Parts) -> dict[tuple[str, str], str]:
    """Settings for stages and flows that are not among `parts`, such as `("stages", "secnd")`, each with a help.

    >>> from vlmdsl.schema import load_config
    >>> config, _ = load_config(overrides=["stages.secnd.train.steps=7"])
    >>> unknown_parts(config, {"stages": ("first", "second"), "flows": ()})
    {('stages', 'secnd'): 'did you mean `stages.second`?'}
    """
    named = ((what, name) for what in PARTS for name in getattr(config, what))
    return {(what, name): _help(what, name, parts) for what, name in named if name not in parts[what]}


def _help(what: PartKind, name: str, parts: Parts) -> str:
    other: PartKind = "flows" if what == "stages" else "stages"
    if name in parts[other]:
        return f"did you mean `{other}.{name}`?"
    near = closest(name, parts[what])
    if near is not None:
        return f"did you mean `{what}.{near}`?"
    return suggestion(name, parts[what], f"the {what} of the recipe") or f"the recipe has no {what}"


def _changed(section: _Section, part: BaseModel) -> _Section:
    return section.model_copy(update={name: getattr(part, name) for name in part.model_fields_set})
