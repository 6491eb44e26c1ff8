"""The section `lowering` of earlier configurations, now part of `schedule`: diagnostics and fixes."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from vlmdsl.diagnostics import Diagnostic, Edit, Fix
from vlmdsl.diagnostics.catalog.configuration import UnknownSetting
from vlmdsl.schema.yaml_tree import YamlTree
from vlmdsl.source import Span

__all__ = ["MOVED", "moved_name", "moved_section"]

MOVED = "lowering"
"""The name of the section."""
_NAMES = {
    (): ("schedule", "lowering"),
    ("default",): ("schedule", "lowering"),
    ("terms",): ("schedule", "lowering"),
    ("budget",): ("schedule", "lowering_budget"),
}


def moved_name(keys: tuple[str, ...], place: Span) -> Diagnostic:
    """The diagnostic for an override of `lowering...`, whose name is at `place`.

    >>> moved_name(("lowering", "budget"), Span("--set", 0, 15)).help
    ('did you mean `schedule.lowering_budget`?',)
    """
    name = ".".join((*_NAMES.get(keys[1:2], _NAMES[()]), *keys[2:]))
    fix = Fix(f"write `{name}`", (Edit(place, name),), safe=False)
    return UnknownSetting.at(place, name=".".join(keys), help=(f"did you mean `{name}`?",), fix=fix)


def moved_section(tree: YamlTree, text: str) -> list[Diagnostic]:
    """The diagnostic for a section `lowering` in the file that `tree` was read from, if it has one."""
    if not isinstance(tree.value, dict) or MOVED not in tree.value:
        return []
    key, place = tree.places[MOVED,]
    settings = _settings(tree.value[MOVED])
    help = "use the settings `lowering` and `lowering_budget` of the section `schedule`"
    edits = () if settings is None else _edits(tree, text, Span(key.file, key.start, place.end), settings)
    fix = Fix("move it to `schedule`", edits, safe=False) if edits else None
    lines = tuple(f"write `{setting}` under `schedule:`" for setting in _lines(settings or {}))
    return [UnknownSetting.at(key, name=MOVED, help=(help, *lines), fix=fix)]


def _settings(section: object) -> dict[str, object] | None:
    """The equivalent settings of `schedule`; None if the section does not have its earlier form."""
    if section is None:
        return {}
    if not isinstance(section, dict) or not section.keys() <= {"default", "terms", "budget"}:
        return None
    default, terms = section.get("default"), section.get("terms") or {}
    if not isinstance(terms, dict):
        return None
    settings = {"lowering": ({"*": default} if default else {}) | terms if terms else default}
    settings["lowering_budget"] = section.get("budget")
    return {name: value for name, value in settings.items() if value is not None}


def _edits(tree: YamlTree, text: str, section: Span, settings: Mapping[str, object]) -> tuple[Edit, ...]:
    """Edits that remove the section and insert its settings at the head of `schedule`, or as a new `schedule`.

    None if the file is one mapping in braces or `schedule` is empty: whole lines cannot be removed there.
    """
    assert isinstance(tree.value, dict)
    if text[tree.places[()][1].start] == "{":
        return ()
    written = _lines(settings)
    end = "\n" if text[section.start : section.end].endswith("\n") else ""
    if "schedule" not in tree.value:
        lines = "\n".join(["schedule:", *(f"  {setting}" for setting in written)]) if written else ""
        return (Edit(section, lines + end if lines else ""),)
    schedule = tree.value["schedule"]
    if not isinstance(schedule, dict) or not schedule:
        return ()
    first = tree.places["schedule", next(iter(schedule))][0].start
    in_braces = text[tree.places["schedule",][1].start] == "{"
    column = first - (text.rfind("\n", 0, first) + 1)
    behind = ", " if in_braces else "\n" + " " * column
    head = "".join(setting + behind for setting in written)
    return Edit(Span(section.file, first, first), head), Edit(section, "")


def _lines(settings: Mapping[str, object]) -> list[str]:
    """Each setting on one line."""
    return [f"{name}: {_flow(value)}" for name, value in settings.items()]


def _flow(value: object) -> str:
    """A value on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=2**20, sort_keys=False).strip()[1:-1]
