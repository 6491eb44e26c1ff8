"""Settings of single stages and flows, and the configuration of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from vlmdsl.diagnostics import Diagnostic, DiagnosticError, closest, suggestion
from vlmdsl.diagnostics.catalog.configuration import BadSetting
from vlmdsl.schema.run import RunConfig
from vlmdsl.source import Span

__all__ = ["PARTS", "Parts", "config_of", "shares_of", "unknown_parts"]

PartKind: TypeAlias = Literal["stages", "flows"]
PARTS: tuple[PartKind, PartKind] = ("stages", "flows")
Parts: TypeAlias = Mapping[PartKind, Sequence[str]]
"""The names of the stages and flows that a recipe has."""

_Section = TypeVar("_Section", bound=BaseModel)


def config_of(config: RunConfig, stage: str = "", flow: str = "") -> RunConfig:
    """The configuration of a flow of a stage: that of the run, overridden by the stage, then by the flow; but for `model`,
    since the towers are those of the run, and take the sizes of a stage (`StageSizes`).

    >>> from vlmdsl.schema import load_config
    >>> config, _ = load_config(overrides=["train.batch=8", "stages.second.train.steps=7"])
    >>> [(config_of(config, stage).train.steps, config_of(config, stage).train.batch) for stage in ("first", "second")]
    [(400, 8), (7, 8)]
    """
    for part in (config.stages.get(stage), config.flows.get(flow)):
        if part is not None:
            changed = {
                name: _changed(getattr(config, name), section)
                for name in part.model_fields_set - {"model"}
                if isinstance(section := getattr(part, name), BaseModel)
            }
            config = config.model_copy(update=changed)
    return config


def shares_of(config: RunConfig, shares: Mapping[str, float]) -> dict[str, float]:
    """The shares of the steps of a stage that its flows have: those that the settings state; other flows divide the rest in
    the proportions of `shares`, which are the recipe's.

    Raises `DiagnosticError` (V0812) if stated shares leave nothing to the other flows, or something without any.

    >>> from vlmdsl.schema import load_config
    >>> config, _ = load_config(overrides=["flows.images.share=0.4"])
    >>> {name: round(share, 2) for name, share in shares_of(config, {"pairs": 0.7, "images": 0.15, "texts": 0.15}).items()}
    {'pairs': 0.49, 'images': 0.4, 'texts': 0.11}
    """
    parts = {name: part.share for name in shares if (part := config.flows.get(name)) is not None}
    stated = {name: share for name, share in parts.items() if share is not None}
    if not stated:
        return dict(shares)
    others, rest = [name for name in shares if name not in stated], 1 - sum(stated.values())
    if rest <= _ROUNDING if others else abs(rest) > _ROUNDING:
        raise DiagnosticError((_unfit(stated, others),))
    total = sum(shares[name] for name in others)
    return {name: stated[name] if name in stated else rest * share / total for name, share in shares.items()}


def _unfit(stated: Mapping[str, float], others: Sequence[str]) -> Diagnostic:
    *_, last = stated
    total = f"{100 * sum(stated.values()):g} %"
    problem = (
        f"leaves no steps to other flows: stated shares sum to {total}" if others else f"sums to {total} with the others"
    )
    help = (
        f"leave steps to {', '.join(f'`{name}`' for name in others)}"
        if others
        else "leave one of them out: it takes the rest"
    )
    return BadSetting.at(Span("the settings", 0, 0), name=f"flows.{last}.share", problem=problem, help=(help,))


_ROUNDING = 1e-6
"""How far shares that sum to 1 may be from it."""


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
