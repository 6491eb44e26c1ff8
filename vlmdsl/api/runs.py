"""What `train` and `evaluate` share: settings with their diagnostics, and the record of a run's recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmdsl.api.driver import Built
from vlmdsl.api.sources import SOURCES
from vlmdsl.diagnostics import Diagnostic, DiagnosticError, render_text
from vlmdsl.diagnostics.catalog.configuration import ResumeMismatch
from vlmdsl.schema import RunConfig, load_config, setting_names
from vlmdsl.source import Span

if TYPE_CHECKING:
    from vlmdsl.runtime.training.run_folder import RunFolder

__all__ = ["check_resumable", "first_process", "load_settings", "recipe_record", "used_files"]

_FREE = (
    "data.workers",
    "train.device",
    "train.compile",
    "train.compile_encoders",
    "train.checkpoint_every",
    "train.keep",
    "train.log_every",
)
"""Settings that a resumed run may change, beside those of the evaluation."""


def first_process() -> bool:
    """Whether this is the one process that writes and talks, of those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def load_settings(path: str | Path | None, overrides: Sequence[str], flags: Mapping[str, object]) -> RunConfig:
    """The configuration of all layers; DiagnosticError with every fault in them."""
    config, diagnostics = load_config(None if path is None else str(path), overrides, flags, SOURCES)
    if config is None:
        raise _error(diagnostics)
    return config


def recipe_record(built: Built, knobs: Mapping[str, object]) -> dict[str, object]:
    """What `run.json` says about the recipe."""
    program = built.written
    return {
        "name": program.name,
        "given_knobs": dict(knobs),
        "knobs": {name: value if isinstance(value, int | float | str) else str(value) for name, value in program.knobs},
        "digests": dict(program.digests),
    }


def used_files(built: Built) -> dict[str, str]:
    """The recipe's text as `recipe.vlo`, and the files beside it that it uses, by their path from it."""
    texts = {"recipe.vlo": built.source.text}
    home = built.source.folder
    for name, text in built.front_end.sources.texts.items():
        path = Path(name)
        if home is not None and name != built.source.name and path.is_file() and path.resolve().is_relative_to(home):
            texts[path.resolve().relative_to(home).as_posix()] = text.text
    return texts


def check_resumable(folder: RunFolder, built: Built, config: RunConfig) -> None:
    """DiagnosticError V0818 if the run in `folder` has another recipe, or other settings that shape its numbers."""
    facts = folder.read_facts()
    stored = load_settings(folder.config, (), {})
    found: list[Diagnostic] = []
    recorded, present = facts["recipe"], recipe_record(built, {})
    if sorted(recorded["digests"].values()) != sorted(dict(built.written.digests).values()):
        found.append(_mismatch(folder, "recipe"))
    elif recorded["knobs"] != present["knobs"]:
        found.append(_mismatch(folder, "value of a knob", f"it had {recorded['knobs']}, now {present['knobs']}"))
    for name in setting_names():
        before, now = _setting(stored, name), _setting(config, name)
        if before != now and name not in _FREE and not name.startswith("evaluation."):
            found.append(_mismatch(folder, f"`{name}`", f"it had {before}, now {now}"))
    if found:
        raise _error(found)


def _setting(config: RunConfig, name: str) -> object:
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _mismatch(folder: RunFolder, what: str, *notes: str) -> Diagnostic:
    help = "leave it out, or start a new run"
    return ResumeMismatch.at(Span("<command line>", 0, 0), path=folder.path, what=what, notes=notes, help=(help,))


def _error(diagnostics: Sequence[Diagnostic]) -> DiagnosticError:
    return DiagnosticError(tuple(diagnostics), render_text(diagnostics, SOURCES))
