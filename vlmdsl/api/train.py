"""`train`: from a recipe, data and a configuration to a trained model in a run folder. Torch is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from vlmdsl.api.driver import Built, build_flows, given_hyper_parameters
from vlmdsl.api.runs import (
    among_several,
    check_resumable,
    check_run_apart,
    course,
    first_process,
    load_settings,
    parts_of,
    recipe_files,
)
from vlmdsl.diagnostics import Diagnostic, DiagnosticError, plain
from vlmdsl.schema import CallSettings, DataSources, RunConfig, listed
from vlmdsl.source import SourceText

if TYPE_CHECKING:
    from vlmdsl.runtime.model import VisionLanguageModel
    from vlmdsl.runtime.tokenizer import Tokenizer

__all__ = ["RunOptions", "RunResult", "Trainer", "train"]


@dataclass(frozen=True)
class RunResult:
    """The result of a run: its folder, its evaluation as in `evaluation.json` (empty without held-out data), and a
    summary."""

    folder: Path
    evaluation: dict[str, Any]
    summary: str

    def to_json(self) -> dict[str, object]:
        """The folder and the evaluation, as plain data."""
        return {"folder": str(self.folder), "evaluation": self.evaluation}

    def to_text(self) -> str:
        """The table of the evaluation and the folder, for people."""
        return self.summary


class RunOptions(TypedDict, total=False):
    """The options of a run besides its recipe, all optional."""

    expression: bool
    """Whether the recipe is source text."""
    knobs: Mapping[str, object] | None
    """Hyper-parameters of the recipe by name."""
    data: DataSources
    """Training sources (`shapes`, tar shards, image folders, tables; globs too), or one."""
    val: DataSources
    """Held-out sources in the same formats."""
    map: Mapping[str, str] | None
    """Field of the recipe -> column of the data."""
    config: str | Path | None
    """A YAML file of settings."""
    overrides: Iterable[str]
    """`section.setting=value` texts, after the file."""
    settings: Mapping[str, object] | None
    """Values by dotted name (`{"train.batch": 64}`), after the overrides. A list, a tuple, an iterator and an array are a
    list, a `Path` is its text, a number of numpy or torch that number; in mappings too."""
    lowering: str | Mapping[str, str]
    """How similarities of all pairs are computed; see `vlmdsl.compile`."""
    steps: int | None
    seed: int | None
    device: str | None
    out: str | Path | None
    """Settings that have their own option, applied after the others."""
    resume: str | Path | None
    """The folder of a run to continue from its newest complete checkpoint."""


class Trainer:
    """One run.

    The constructor checks it: errors in the recipe or configuration raise `DiagnosticError` at once. `options` are those of
    `train`. `fit` trains; afterwards `model` and `tokenizer` are available. With `resume` they are available at once, from
    the newest intact checkpoint.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> out = tempfile.mkdtemp()
    >>> trainer = vlmdsl.Trainer("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=out)
    >>> result = trainer.fit()
    >>> sorted(trainer.model.encoders)
    ['language', 'vision']
    """

    def __init__(self, recipe: str | Path | None = None, **options: Unpack[RunOptions]) -> None:
        unknown = sorted(options.keys() - RunOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"Trainer takes no argument {unknown[0]!r}")
        resume = options.get("resume")
        self._resume = None if resume is None else _folders().RunFolder.existing(str(resume))
        self._built: tuple[Built, ...]
        self._knobs = dict(given_hyper_parameters(options.get("knobs")))
        self.config: RunConfig
        """The resolved configuration."""
        if self._resume is None:
            if recipe is None:
                raise TypeError("Trainer needs a recipe, or a run to resume")
            self._built, self.config = _checked(recipe, self._knobs, options.get("config"), options)
            check_run_apart(self.config)
            if first_process():
                _folders().RunFolder.check_free(self.config.out)
        else:
            self._knobs = dict(self._resume.read_facts().recipe.given_knobs) | self._knobs
            stored = options.get("config") or self._resume.config
            word = self._resume.recipe if recipe is None else recipe
            kept = self._resume.kept_uses() if recipe is None else None
            self._built, self.config = _checked(word, self._knobs, stored, options, kept)
            check_resumable(self._resume, self._built, self.config)
        self._trained: tuple[VisionLanguageModel, Tokenizer] | None = None

    def fit(self) -> RunResult:
        """Evaluate the untrained model, train, and evaluate again; the folder of the result holds everything.

        Raises `DiagnosticError` before the first step if the data lacks a field, and later for a loss that is not finite
        (V0819) or a full disk (V0903); the last checkpoint is kept. Ctrl-C (KeyboardInterrupt), SIGTERM and SIGHUP
        (SystemExit) end the run after the current step, with a checkpoint.
        """
        stages = course(self._built, self.config)
        session = import_module("vlmdsl.runtime.training.session")
        outcome = session.run(stages, self.config, recipe_files(self._built[0], self._knobs), self._resume)
        self._trained = outcome.model, outcome.tokenizer
        if outcome.first and self.config.tracking.report:
            self._write_report(outcome.folder)
        return RunResult(outcome.folder.path, outcome.evaluation, outcome.summary)

    def _write_report(self, folder: Any) -> None:
        """The page of the finished run; the run does not fail where it cannot be written."""
        try:
            import_module("vlmdsl.api.report").write_run_report(folder, self._built, self.config)
        except DiagnosticError as error:
            reasons = "; ".join(diagnostic.message for diagnostic in error.diagnostics)
            words = f"note: report.html was not written: {reasons}; `vlmdsl report {folder.path}` writes it"
            with suppress(OSError):  # the terminal may be gone
                print(plain(words), file=sys.stderr, flush=True)

    @property
    def model(self) -> VisionLanguageModel:
        """The trained encoders and the objective."""
        return self._model_and_tokenizer()[0]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the texts that the model was trained on."""
        return self._model_and_tokenizer()[1]

    def _model_and_tokenizer(self) -> tuple[VisionLanguageModel, Tokenizer]:
        if self._trained is None:
            if self._resume is None:
                raise RuntimeError("there is no model before fit(); Trainer(resume=FOLDER) has the one of an earlier run")
            stages = course(self._built, self.config)
            measuring = import_module("vlmdsl.runtime.training.measuring")
            restored = measuring.restored_model(stages, self.config, self._resume)
            self._trained = restored.measured, restored.tokenizers.default
        return self._trained


def train(recipe: str | Path | None = None, **options: Unpack[RunOptions]) -> RunResult:
    """Train a model with a recipe, evaluate it, and save everything in a run folder.

    Raises `DiagnosticError` with all errors of the recipe, the configuration and the data that can be found before the first
    step.

    Args:
        recipe: a bundled name, a path, or source text with `expression`; optional with `resume`.
        options: those of `RunOptions`: `data`, `val`, `map`, `knobs`, `config`, `settings`, `steps`, `seed`, `device`,
            `out`, `resume` and more.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> result = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> sorted(result.evaluation["retrieval"]["image_to_text"])[:3]
    ['R@1', 'R@10', 'R@5']
    """
    if not among_several():
        return Trainer(recipe, **options).fit()
    # One of several processes: an error on one of them is reported on all, and none waits for it.
    with import_module("vlmdsl.runtime.training.meeting").together():
        trainer = Trainer(recipe, **options)
    return trainer.fit()


def _flags(options: RunOptions) -> CallSettings:
    """The settings that a call passes."""
    out = options.get("out")
    named: dict[str, object] = {
        "schedule.lowering": _lowering(options.get("lowering")),
        "data.train": listed(options.get("data")) or None,
        "data.val": listed(options.get("val")) or None,
        "data.map": options.get("map") or None,
        "train.steps": options.get("steps"),
        "train.seed": options.get("seed"),
        "train.device": options.get("device"),
        "out": None if out is None else str(out),
    }
    present = {name: value for name, value in named.items() if value is not None}
    return CallSettings(options.get("settings") or {}, present)


def _lowering(choice: str | Mapping[str, str] | None) -> str | dict[str, str] | None:
    """What is asked for as a setting: a name for all terms replaces what settings say, names of terms are added to it."""
    if choice is None or isinstance(choice, str):
        return choice
    names = dict(choice)
    return names.get("*") if names.keys() <= {"*"} else names


def _folders() -> Any:
    """The module of run folders, which needs no torch."""
    return import_module("vlmdsl.runtime.training.run_folder")


def _checked(
    recipe: str | Path,
    knobs: Mapping[str, object],
    config: str | Path | None,
    options: RunOptions,
    kept: Mapping[tuple[str, str], SourceText] | None = None,
) -> tuple[tuple[Built, ...], RunConfig]:
    """The built recipe and the configuration; DiagnosticError with the errors of both."""
    faults: list[Diagnostic] = []
    built, resolved = None, None
    for attempt in ("recipe", "configuration"):
        try:
            if attempt == "recipe":
                built = build_flows(recipe, expression=options.get("expression", False), knobs=knobs, kept=kept)
            else:
                # Of a resumed run, `check_resumable` compares all settings, and first of all the recipe.
                parts = parts_of(built) if built is not None and not options.get("resume") else None
                resolved = load_settings(config, options.get("overrides", ()), _flags(options), parts)
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if built is None or resolved is None:
        raise DiagnosticError(tuple(faults))
    return built, resolved
