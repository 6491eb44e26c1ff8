"""The identity of a run, and what a resumed run may change. This module needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vlmdsl.schema import RunConfig, setting_names

__all__ = ["FREE", "identity_of", "setting", "settings_of"]

FREE = (
    "data.cache",
    "data.max_bad_share",
    "data.workers",
    "schedule.lowering",
    "schedule.lowering_budget",
    "train.device",
    "train.compile",
    "train.compile_encoders",
    "train.parallel",
    "train.recompute",
    "train.checkpoint_every",
    "train.keep",
    "train.log_every",
    "train.term_gradients_every",
)
"""Settings that a resumed run may change, beside those of evaluation and tracking: how it is watched and kept."""


_LENGTH = ("train.steps", "train.epochs")


def setting(config: RunConfig, name: str) -> Any:
    """The value of the setting `name`, such as `train.batch`, as JSON has it."""
    value: Any = config.model_dump(mode="json")
    for part in name.split("."):
        value = value[part]
    return value


def settings_of(config: RunConfig, *, shaping: bool = False) -> dict[str, Any]:
    """Every setting by its name; `shaping`: those that shape the numbers of a run."""
    names = [name for name in setting_names() if not shaping or _shapes(name)]
    return {name: setting(config, name) for name in names}


def identity_of(recipe: Mapping[str, Any], config: RunConfig, data: Mapping[str, Any]) -> str:
    """SHA-256 of all that the numbers of a run depend on: the recipe, the settings that shape them, the samples.

    Not of the number of steps: a run may be continued to another one where that changes nothing before.
    """
    samples = {
        name: (facts["samples"], facts["fingerprint"]) for name, facts in data.items() if not name.endswith("held_out")
    }
    parts = {
        "recipe": sorted(recipe["digests"].values()),
        "knobs": recipe["knobs"],
        "settings": {name: value for name, value in settings_of(config, shaping=True).items() if name not in _LENGTH},
        "data": samples,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _shapes(name: str) -> bool:
    return name not in FREE and name != "out" and not name.startswith(("evaluation.", "tracking."))
