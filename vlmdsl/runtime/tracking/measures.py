"""The measures of an evaluation, flat: by the path to each in `evaluation.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["measures_of"]


def measures_of(evaluation: Mapping[str, Any], which: str | None = None) -> dict[str, float]:
    """The measures of an `evaluation.json`, flat; with `which` (`chance`, `untrained`, a baseline) those beside them.

    A group is any mapping with a `chance`; a name is the path to the group and the name of the measure.

    >>> measures_of({"samples": 9, "zero_shot": {"classes": 3, "top-1": 0.5, "chance": {"top-1": 0.3}}})
    {'zero_shot.top-1': 0.5}
    """
    return dict(_flat("", evaluation, which))


def _flat(path: str, group: Mapping[str, Any], which: str | None) -> Sequence[tuple[str, float]]:
    measures: list[tuple[str, float]] = []
    if "chance" in group:
        values = group if which is None else group.get(which) or group.get("baselines", {}).get(which, {})
        measures += [(f"{path}.{name}", values[name]) for name in group["chance"] if name in values]
    for name, value in group.items():
        if isinstance(value, Mapping) and name not in ("chance", "untrained", "baselines"):
            measures += _flat(f"{path}.{name}" if path else name, value, which)
    return measures
