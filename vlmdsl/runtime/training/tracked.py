"""What trackers learn of a run."""

from __future__ import annotations

import hashlib
import json

from vlmdsl.runtime.tracking.trackers import TrackedRun
from vlmdsl.runtime.training.identity import settings_of
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.schema import RunConfig

__all__ = ["tracked_run"]

_DIGITS = 16


def tracked_run(folder: RunFolder, config: RunConfig, done: int) -> TrackedRun:
    """The run in a folder, which has its `run.json`, after `done` steps."""
    facts = folder.read_facts()
    # What is the same in every resumption, and in no other run: when and by which command it was started.
    started = json.dumps([facts.identity, folder.path.name, facts.started], sort_keys=True)
    identity = hashlib.sha256(started.encode()).hexdigest()[:_DIGITS]
    settings = {"recipe": facts.recipe.name, **{f"recipe.{name}": value for name, value in facts.recipe.knobs.items()}}
    return TrackedRun(
        folder.path.resolve(), identity, folder.path.name, config.tracking.project, settings | settings_of(config), done
    )
