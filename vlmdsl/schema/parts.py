"""Settings of single stages and flows, and the configuration of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel

from vlmdsl.schema.run import RunConfig

__all__ = ["config_of", "unknown_parts"]

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


def unknown_parts(config: RunConfig, stages: Iterable[str], flows: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Settings for stages and flows that the recipe does not have, such as `stages.secnd`, with the names that exist."""
    named: tuple[tuple[str, Mapping[str, object], tuple[str, ...]], ...] = (
        ("stages", config.stages, tuple(stages)),
        ("flows", config.flows, tuple(flows)),
    )
    return {f"{what}.{name}": has for what, settings, has in named for name in settings if name not in has or not name}


def _changed(section: _Section, part: BaseModel) -> _Section:
    return section.model_copy(update={name: getattr(part, name) for name in part.model_fields_set})
