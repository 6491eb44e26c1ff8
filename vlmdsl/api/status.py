"""Whether the status of a recipe holds: that of a bundled recipe describes its meaning, and holds for no other one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from vlmdsl.api.driver import build_flows
from vlmdsl.api.recipes import card_of
from vlmdsl.ir import Program
from vlmdsl.ir.digest import digest
from vlmdsl.passes import optimise
from vlmdsl.source.bundled import bundled_names, bundled_text

__all__ = ["Standing", "standing"]


@dataclass(frozen=True)
class Standing:
    """The verdict on a status: `text` for people, and whether it `holds` (None: unknown)."""

    text: str
    holds: bool | None


def standing(program: Program) -> Standing:
    """The standing of a program's status.

    The status of a bundled recipe describes its meaning (`ir.digest`, which ignores comments, layout and the names of
    `let`s), with its default hyper-parameters, and that of each of its stages and flows. If a recipe has the same status but
    another meaning, the status is not shown. Any other status is a claim of its author.
    """
    if not program.status:
        return Standing("", None)
    sources = [name for name in bundled_names() if _claims(name, program.status)]
    if not sources:
        return Standing(f"claimed by its author, not verified here: {program.status}", None)
    meaning = digest(optimise(program))
    if any(meaning in _bundled(name).meanings for name in sources):
        return Standing(program.status, True)
    return Standing(_withheld(program, sources[0]), False)


def _claims(name: str, status: str) -> bool:
    """Whether a bundled recipe has this status; only recipes whose text contains it are parsed."""
    text = bundled_text(name)
    return text is not None and status in text.text and card_of(name).status == status


def _withheld(program: Program, name: str) -> str:
    """Why the status of a bundled recipe is not shown."""
    own = dict(_bundled(name).knobs)
    changed = [f"`{key}` = {value}" for key, value in program.knobs if key in own and own[key] != value]
    here = f", here with {', '.join(changed)}" if changed else ""
    return (
        f"does not apply: this is the status of `{name}`, which refers to `{name}` with its default "
        f"hyper-parameters{here}; `vlmdsl diff {name} ...` shows the difference"
    )


@dataclass(frozen=True)
class _Bundled:
    meanings: frozenset[str]
    """Of its objectives, one for each flow."""
    knobs: tuple[tuple[str, object], ...]


@cache
def _bundled(name: str) -> _Bundled:
    flows = build_flows(name)
    return _Bundled(frozenset(digest(built.planned) for built in flows), flows[0].written.knobs)
