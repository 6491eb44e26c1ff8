"""What `train` and `evaluate` share: settings with their diagnostics, and the record of a run's recipe."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.compile import compile_built
from vlmdsl.api.driver import Built
from vlmdsl.api.sources import SOURCES
from vlmdsl.diagnostics import Diagnostic, DiagnosticError, render_text
from vlmdsl.diagnostics.catalog.configuration import BadSetting, EpochsUnknown, ResumeMismatch
from vlmdsl.ir import Stage
from vlmdsl.planning.lowering import LoweringRequest
from vlmdsl.schema import CallSettings, DataConfig, DataSources, Flags, Parts, RunConfig, config_of, listed, load_config
from vlmdsl.source import Span

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective
    from vlmdsl.runtime.training.course import StageOfRun
    from vlmdsl.runtime.training.run_folder import RunFolder
    from vlmdsl.runtime.training.starting import RecipeFiles

__all__ = [
    "among_several", "check_resumable", "check_run_apart", "check_steps", "course", "data_of_call", "first_process",
    "folder_and_checkpoint", "load_settings", "lowering_of", "parts_of", "recipe_files", "recipe_record", "settings_of_call",
]  # fmt: skip

_MAIN = "recipe.vlo"


def folder_and_checkpoint(run: str | Path) -> tuple[RunFolder, Path | None]:
    """The run in a folder; where that is the folder of a checkpoint, the run that it is of, and the checkpoint. Raises
    `DiagnosticError` as `RunFolder.existing` does."""
    existing = import_module("vlmdsl.runtime.training.run_folder").RunFolder.existing
    try:
        return existing(str(run)), None
    except DiagnosticError:
        with suppress(OSError, ValueError):  # of a text that is not a path
            checkpoint = Path(run).resolve()
            if import_module("vlmdsl.runtime.training.checkpoint").is_checkpoint(checkpoint):
                return existing(str(checkpoint.parent.parent)), checkpoint
        raise


def first_process() -> bool:
    """Whether this is the process that writes and prints, among those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def among_several() -> bool:
    """Whether this process trains together with others, which `torchrun` or the host program has started."""
    distributed = sys.modules.get("torch.distributed")
    return "RANK" in os.environ or (distributed is not None and bool(distributed.is_initialized()))


def load_settings(
    path: str | Path | None,
    overrides: Iterable[str],
    flags: Flags,
    parts: Parts | None = None,
    fixed: Mapping[str, object] | None = None,
) -> RunConfig:
    """The configuration from all layers; DiagnosticError with all of their errors, also for settings of stages and flows
    that are not among `parts`, and for settings of the command line that are `fixed`."""
    if isinstance(path, Mapping):
        help = "the argument `settings=` takes a mapping of values by dotted name"
        place = Span("<command line>", 0, 0)
        raise _error([BadSetting.at(place, name="config", problem="must be the path of a YAML file", help=(help,))])
    config, diagnostics = load_config(None if path is None else str(path), overrides, flags, SOURCES, parts, fixed)
    if config is None:
        raise _error(diagnostics)
    return config


def settings_of_call(
    data: DataSources,
    val: DataSources,
    map: Mapping[str, str] | None,
    settings: Mapping[str, object] | None,
    steps: int | None = None,
    device: str | None = None,
    out: str | Path | None = None,
) -> CallSettings:
    """The settings that a call passes."""
    named: dict[str, object] = {"data.train": listed(data), "data.val": listed(val), "data.map": map}
    chosen = {"train.steps": steps, "train.device": device, "out": None if out is None else str(out)}
    present = {name: value for name, value in named.items() if value}
    present |= {name: value for name, value in chosen.items() if value is not None}
    return CallSettings(settings or {}, present)


def data_of_call(data: DataSources, map: Mapping[str, str] | None = None, overrides: Iterable[str] = ()) -> DataConfig:
    """The settings of the data that a call reads: `train` and `map` are those of the call. Raises `DiagnosticError`."""
    named: dict[str, object] = {"data.train": listed(data), "data.map": map}
    return load_settings(None, overrides, {name: value for name, value in named.items() if value is not None}).data


def check_steps(config: RunConfig, reason: str) -> None:
    """V0847 where epochs are counted, for a command that takes steps; `reason` says why."""
    if config.train.epochs is not None:
        help = ("give steps instead: `--steps N`, or `--set train.steps=N`",)
        raise DiagnosticError((EpochsUnknown.at(Span("<command line>", 0, 0), reason=reason, help=help),))


def course(built: Sequence[Built], config: RunConfig, *, compiled: bool | None = None) -> tuple[StageOfRun, ...]:
    """The stages that a run trains, with the objectives of their flows."""
    compiled = config.train.compile if compiled is None else compiled
    terms = {term.name for one in built for term in one.written.terms}
    stages: dict[str, tuple[Stage, dict[str, Objective]]] = {}
    for one in built:
        _, objectives = stages.setdefault(one.stage.name, (one.stage, {}))
        request = lowering_of(config, one, terms)
        objectives[one.flow.name] = compile_built(one, compiled=compiled, lowering=request)
    of_run: tuple[StageOfRun, ...] = import_module("vlmdsl.runtime.training.course").course_of(stages.values(), config)
    return of_run


def lowering_of(config: RunConfig, flow: Built, terms: Iterable[str]) -> LoweringRequest:
    """The lowerings that the settings ask for in a flow of a recipe, which has these `terms` in all of its flows."""
    own = config_of(config, flow.stage.name, flow.flow.name).schedule
    others = set(terms) - {term.name for term in flow.written.terms}  # a lowering of theirs is not for this flow
    by_term = {"*": own.lowering} if isinstance(own.lowering, str) else own.lowering
    by_term = {name: lowering for name, lowering in by_term.items() if name not in others}
    return replace(LoweringRequest.of(by_term), budget=own.lowering_budget)


def check_run_apart(config: RunConfig, default: str = "runs") -> None:
    """V0870 if the folder of a run would be in a folder of data that it reads; `default` is where it is if none is named."""
    own = [config.data, *(part.data for parts in (config.stages, config.flows) for part in parts.values())]
    specs = [spec for data in own for spec in (*data.train, *data.val, *data.reference)]
    out = default if config.out is None else config.out
    import_module("vlmdsl.runtime.data.read_places").check_apart(out, specs, "`--out`")


def parts_of(built: Iterable[Built]) -> Parts:
    """The names of the stages and flows of recipes."""
    own = tuple(built)
    return {
        "stages": tuple(dict.fromkeys(one.stage.name for one in own if one.stage.name)),
        "flows": tuple(dict.fromkeys(one.flow.name for one in own if one.flow.name)),
    }


def recipe_record(built: Built, knobs: Mapping[str, object]) -> dict[str, Any]:
    """What `run.json` says about the recipe."""
    program = built.written
    return {
        "name": program.name,
        "given_knobs": {name: _plain(value) for name, value in knobs.items()},
        "knobs": {name: _plain(value) for name, value in program.knobs},
        "digests": dict(program.digests),
    }


def recipe_files(built: Built, knobs: Mapping[str, object]) -> RecipeFiles:
    """The recipe for its run folder: its text as `recipe.vlo`, and every file that it uses.

    A file beside the recipe or below keeps its relative path; others, and those whose path is taken, go to `kept/`.
    """
    starting = import_module("vlmdsl.runtime.training.starting")
    kept = import_module("vlmdsl.runtime.training.run_folder").KEPT
    uses = built.front_end.uses
    names = {built.source.name: _MAIN}
    texts = {_MAIN: built.source.text}
    for name in dict.fromkeys(uses.values()):
        if name not in names:
            text = built.front_end.sources.texts[name].text
            names[name] = _kept_place(name, text, built.source.folder, kept)
            texts[names[name]] = text
    stored = [{"by": names[by], "path": path, "file": names[file]} for (by, path), file in uses.items() if by in names]
    files: RecipeFiles = starting.RecipeFiles({**recipe_record(built, knobs), "uses": stored}, texts)
    return files


def _kept_place(name: str, text: str, home: Path | None, kept: str) -> str:
    resolved = Path(name).resolve()
    if home is not None and resolved.is_relative_to(home):
        place = resolved.relative_to(home)
        if place.as_posix() != _MAIN and place.parts[0] not in (kept, "checkpoints"):
            return place.as_posix()
    return f"{kept}/{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}/{resolved.name}"


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str) else str(value)


def check_resumable(folder: RunFolder, flows: Sequence[Built], config: RunConfig) -> None:
    """DiagnosticError V0818 if the run in `folder` has another recipe, or other settings that change its numbers."""
    built = flows[0]
    settings_of = import_module("vlmdsl.runtime.training.identity").settings_of
    recorded, present = folder.read_facts().recipe, recipe_record(built, {})
    stored = load_settings(folder.config, (), {})
    mismatches: list[Diagnostic] = []
    if sorted(recorded.digests.values()) != sorted(dict(built.written.digests).values()):
        mismatches.append(_mismatch(folder, "recipe"))
    elif recorded.knobs != present["knobs"]:
        mismatches.append(
            _mismatch(folder, "value of a hyper-parameter", f"it had {recorded.knobs}, now {present['knobs']}")
        )
    before = settings_of(stored, shaping=True) | {"out": stored.out}
    now = settings_of(config, shaping=True) | {"out": config.out}
    if now["train.epochs"] is None:  # its steps are counted, and others are asked for
        del now["train.epochs"]
    elif before["train.epochs"] != now["train.epochs"]:
        del now["train.steps"]
    for name, value in now.items():
        if before[name] != value:
            notes = _changes_of_length(folder, flows, stored, config) if name == "train.steps" else []
            if notes or name != "train.steps":
                mismatches.append(_mismatch(folder, f"`{name}`", f"it had {before[name]}, now {value}", *notes))
    if mismatches:
        raise _error(mismatches)


def _changes_of_length(folder: RunFolder, flows: Sequence[Built], stored: RunConfig, config: RunConfig) -> list[str]:
    """What another number of steps would have changed about those that are done; empty if nothing."""
    if len({one.stage.name for one in flows}) > 1:
        return ["a later stage begins with the weights of the last step of an earlier one"]
    checkpoint = import_module("vlmdsl.runtime.training.checkpoint")
    newest, _ = checkpoint.sound_checkpoint(folder.checkpoints)
    done = 0 if newest is None else checkpoint.read_position(newest).step
    length = import_module("vlmdsl.runtime.training.length")
    changes: list[str] = length.changes_of_length(stored, config, done, [one.planned for one in flows])
    return changes


def _mismatch(folder: RunFolder, what: str, *notes: str) -> Diagnostic:
    help = "leave it out, or start a new run"
    return ResumeMismatch.at(Span("<command line>", 0, 0), path=folder.path, what=what, notes=notes, help=(help,))


def _error(diagnostics: Sequence[Diagnostic]) -> DiagnosticError:
    return DiagnosticError(tuple(diagnostics), render_text(diagnostics, SOURCES))
