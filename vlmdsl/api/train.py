"""`train`: from a recipe, data and a configuration to a trained model in a run folder. Torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.compile import compile_built
from vlmdsl.api.driver import Built, build
from vlmdsl.api.runs import check_resumable, first_process, load_settings, recipe_record, used_files
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.schema import RunConfig

if TYPE_CHECKING:
    from vlmdsl.runtime.model import VisionLanguageModel
    from vlmdsl.runtime.tokenizer import Tokenizer
    from vlmdsl.runtime.training.session import Outcome

__all__ = ["RunResult", "Trainer", "train"]


@dataclass(frozen=True)
class RunResult:
    """What a run left: its folder, its evaluation as in `evaluation.json` (empty without held-out data), and a summary."""

    folder: Path
    evaluation: dict[str, Any]
    summary: str

    def to_json(self) -> dict[str, object]:
        """The folder and the evaluation, for a machine."""
        return {"folder": str(self.folder), "evaluation": self.evaluation}

    def to_text(self) -> str:
        """The table of the evaluation and the folder, for people."""
        return self.summary


class Trainer:
    """One run, checked when it is made: a wrong recipe or configuration is a `DiagnosticError` at once.

    The arguments are those of `train`. `fit` trains; afterwards `model` and `tokenizer` are there to be used.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> out = tempfile.mkdtemp()
    >>> trainer = vlmdsl.Trainer("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=out)
    >>> result = trainer.fit()
    >>> sorted(trainer.model.encoders)
    ['language', 'vision']
    """

    def __init__(
        self,
        recipe: str | Path | None = None,
        *,
        expression: bool = False,
        knobs: Mapping[str, object] | None = None,
        data: Sequence[str] = (),
        val: Sequence[str] = (),
        map: Mapping[str, str] | None = None,
        config: str | Path | None = None,
        overrides: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        steps: int | None = None,
        seed: int | None = None,
        device: str | None = None,
        out: str | Path | None = None,
        resume: str | Path | None = None,
    ) -> None:
        named: dict[str, object] = {
            "data.train": tuple(data) or None,
            "data.val": tuple(val) or None,
            "data.map": dict(map or {}) or None,
            "train.steps": steps,
            "train.seed": seed,
            "train.device": device,
            "out": None if out is None else str(out),
        }
        flags = dict(settings or {}) | {name: value for name, value in named.items() if value is not None}
        self._resume = None if resume is None else _folders().RunFolder.existing(str(resume))
        self._built: Built
        self._knobs = dict(knobs or {})
        self.config: RunConfig
        """The resolved configuration."""
        if self._resume is None:
            if recipe is None:
                raise TypeError("Trainer needs a recipe, or a run to resume")
            self._built, self.config = _checked(recipe, expression, self._knobs, config, overrides, flags)
            if first_process():
                _folders().RunFolder.check_free(self.config.out)
        else:
            self._knobs = dict(self._resume.read_facts()["recipe"]["given_knobs"]) | self._knobs
            stored = self._resume.config if config is None else config
            word = self._resume.recipe if recipe is None else recipe
            self._built, self.config = _checked(word, expression, self._knobs, stored, overrides, flags)
            check_resumable(self._resume, self._built, self.config)
        self._outcome: Outcome | None = None

    def fit(self) -> RunResult:
        """Evaluate the untrained model, train, evaluate again; everything is in the folder of the result.

        Raises `DiagnosticError` for data that lacks what the recipe needs, before the first step, and for a loss that is
        not finite (V0819), with the last checkpoint kept.
        """
        objective = compile_built(self._built, compiled=self.config.train.compile)
        session = import_module("vlmdsl.runtime.training.session")
        self._outcome = outcome = session.run(
            objective,
            self.config,
            recipe=recipe_record(self._built, self._knobs),
            texts=used_files(self._built),
            resume=self._resume,
        )
        return RunResult(outcome.folder.path, outcome.evaluation, outcome.summary)

    @property
    def model(self) -> VisionLanguageModel:
        """The trained encoders and the objective."""
        return self._finished().model

    @property
    def tokenizer(self) -> Tokenizer:
        """What turned texts into the token ids that the model takes."""
        return self._finished().tokenizer

    def _finished(self) -> Outcome:
        if self._outcome is None:
            raise RuntimeError("call fit() first")
        return self._outcome


def train(
    recipe: str | Path | None = None,
    *,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    data: Sequence[str] = (),
    val: Sequence[str] = (),
    map: Mapping[str, str] | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
) -> RunResult:
    """Train a model with a recipe and leave everything in a run folder.

    Raises `DiagnosticError` with every fault of the recipe, the configuration or the data that can be told before the
    first step.

    Args:
        recipe: a bundled name, a path, or with `expression` source text; may be left out with `resume`.
        expression: whether `recipe` is source text.
        knobs: hyper-parameters of the recipe by name.
        data: training sources (`shapes`, tar shards, image folders, tables; globs too).
        val: held-out sources in the same forms.
        map: field of the recipe -> column of the data.
        config: a YAML file of settings.
        overrides: `section.setting=value` texts, after the file.
        settings: values by dotted name (`{"train.batch": 64}`), after the overrides.
        steps, seed, device, out: settings with a name of their own.
        resume: the folder of a run to go on with from its newest complete checkpoint.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> result = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> sorted(result.evaluation["retrieval"]["image_to_text"])[:3]
    ['R@1', 'R@10', 'R@5']
    """
    trainer = Trainer(
        recipe,
        expression=expression,
        knobs=knobs,
        data=data,
        val=val,
        map=map,
        config=config,
        overrides=overrides,
        settings=settings,
        steps=steps,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
    )
    return trainer.fit()


def _folders() -> Any:
    """The module of run folders, which needs no torch."""
    return import_module("vlmdsl.runtime.training.run_folder")


def _checked(
    recipe: str | Path,
    expression: bool,
    knobs: Mapping[str, object],
    config: str | Path | None,
    overrides: Sequence[str],
    flags: Mapping[str, object],
) -> tuple[Built, RunConfig]:
    """The built recipe and the configuration; DiagnosticError with the faults of both."""
    faults: list[Diagnostic] = []
    built, resolved = None, None
    for attempt in ("recipe", "configuration"):
        try:
            if attempt == "recipe":
                built = build(recipe, expression=expression, knobs=knobs)
            else:
                resolved = load_settings(config, overrides, flags)
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if built is None or resolved is None:
        raise DiagnosticError(tuple(faults))
    return built, resolved
