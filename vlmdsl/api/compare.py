"""`compare`: several recipes on the same data, encoders, order and evaluation. Torch is imported when it runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vlmdsl._resources import installed_version
from vlmdsl.api.comparison import COMPARISON, FINISHED, Comparison, Contender, Run, remark_on_steps
from vlmdsl.api.compile import compile_built
from vlmdsl.api.driver import Built, build_flows
from vlmdsl.api.runs import check_run_apart, check_steps, load_settings, parts_of, recipe_record, settings_of_call
from vlmdsl.api.train import Trainer
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.comparison import OneProcessOnly
from vlmdsl.schema import PARTS, DataSources, Parts, RunConfig, config_of
from vlmdsl.source import Span

__all__ = ["Comparison", "Contender", "compare"]

_MOST_SEEDS = 1000
_WITHOUT_EFFECT = ("workers", "checkpoint_every", "keep", "log_every", "term_gradients_every")
"""Settings that change how a run is logged and saved, not its results."""


def compare(
    recipes: str | Path | Contender | Iterable[str | Path | Contender],
    *,
    seeds: int = 3,
    data: DataSources = (),
    val: DataSources = (),
    map: Mapping[str, str] | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
    steps: int | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    confidence: float = 0.95,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Train every recipe with every seed, and compare held-out results with those of the first recipe, paired by seed.

    All runs have the same configuration, and runs with the same seed the same initial towers and order of samples; the
    tokenizer is trained once, on the texts of all recipes. A recipe with stages takes `steps` in each of them; if recipes do
    not train equally long, the comparison says so. Finished runs of the same recipe, data and configuration in the
    folder are reused; stopped ones resume from their newest checkpoint. Raises `DiagnosticError` with the errors of all
    recipes, the configuration and the data before the first run begins.

    Args:
        recipes: bundled names, paths, or `Contender`s (source text, hyper-parameters, names); the first is the reference.
        seeds: how many seeds, from `train.seed` on.
        data, val, map, config, overrides, settings, steps, device: as for `train`.
        out: the folder; `runs/compare-` and the names of the recipes by default. It gets a run folder for each run,
            `comparison.json`, `comparison.png` and `report.html`.
        confidence: probability that Student's intervals of the differences hold.
        say: is called with a line when a run begins.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 16}
    >>> found = vlmdsl.compare(["clip", "align"], seeds=1, data=["shapes:samples=16"], steps=1, settings=settings,
    ...     out=tempfile.mkdtemp())
    >>> found.contenders, len(found.runs), found.difference("align", "retrieval.image_to_text.R@1").low
    (('clip', 'align'), 2, None)
    """
    _check_alone()
    recipes = [recipes] if isinstance(recipes, str | Path | Contender) else list(recipes)
    if not 1 <= seeds <= _MOST_SEEDS or not recipes:
        raise ValueError(f"a comparison needs a recipe, and from 1 to {_MOST_SEEDS} seeds")
    flags = settings_of_call(data, val, map, settings, steps, device, out)
    sides, resolved = _checked(recipes, lambda parts: load_settings(config, overrides, flags, parts))
    check_run_apart(resolved)
    names = tuple(side.name for side in sides)
    folder = Path(resolved.out or f"runs/compare-{'-'.join(names)}")
    common = import_module("vlmdsl.runtime.training.common").prepare(
        [[compile_built(built, compiled=False) for built in side.flows] for side in sides], resolved
    )
    chosen_seeds = range(resolved.train.seed, resolved.train.seed + seeds)
    import_module("vlmdsl.runtime.training.run_folder").make_folder(str(folder))
    with import_module("vlmdsl.runtime.training.lock").locked(folder):
        runs = _run_all(_plans(sides, resolved, folder, common, chosen_seeds), say)
        ordered = tuple(run for name in names for run in runs if run.contender == name)
        result = Comparison(folder, names, tuple(chosen_seeds), ordered, _facts(sides, resolved, common.data), confidence)
        _write(result)
    return result


@dataclass(frozen=True)
class _Side:
    """A built contender, under a unique name."""

    name: str
    contender: Contender
    flows: tuple[Built, ...]

    def settings(self, config: RunConfig) -> RunConfig:
        """The configuration without settings of stages and flows that only other contenders have."""
        own = parts_of(self.flows)
        stages, flows = ({name: part for name, part in getattr(config, what).items() if name in own[what]} for what in PARTS)
        return config.model_copy(update={"stages": stages, "flows": flows})

    def steps(self, config: RunConfig) -> int:
        """Number of steps of a run, over all stages."""
        stages = dict.fromkeys(built.stage.name for built in self.flows)
        return sum(config_of(config, name).train.steps for name in stages)


@dataclass(frozen=True)
class _Plan:
    """One run in `folder`, finished or still to do."""

    side: _Side
    config: RunConfig
    folder: Path

    @property
    def finished(self) -> bool:
        return os.path.lexists(self.folder / FINISHED)


def _check_alone() -> None:
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        help = ("start it without torchrun",)
        raise DiagnosticError((OneProcessOnly.at(Span("<command line>", 0, 0), count=count, help=help),))


def _checked(
    recipes: Sequence[str | Path | Contender], load: Callable[[Parts | None], RunConfig]
) -> tuple[list[_Side], RunConfig]:
    """All recipes, built, and the configuration; DiagnosticError with the errors of all."""
    faults: list[Diagnostic] = []
    sides: list[_Side] = []
    resolved: RunConfig | None = None
    for recipe in recipes:
        contender = recipe if isinstance(recipe, Contender) else Contender(recipe)
        try:
            flows = build_flows(contender.recipe, expression=contender.expression, knobs=contender.knobs)
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
        else:
            name = _free_name(contender.name or flows[0].written.name, [side.name for side in sides])
            sides.append(_Side(name, contender, flows))
    try:
        resolved = load(None if faults else parts_of(built for side in sides for built in side.flows))
        check_steps(resolved, "recipes are compared after the same number of steps")
    except DiagnosticError as error:
        faults.extend(error.diagnostics)
    if faults or resolved is None:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    return sides, resolved


def _free_name(name: str, taken: Sequence[str]) -> str:
    """`clip`, `clip-2`, `clip-3`: the first that is not taken."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(candidate for candidate in numbered if candidate not in taken)


def _plans(sides: Sequence[_Side], config: RunConfig, folder: Path, common: Any, seeds: Sequence[int]) -> list[_Plan]:
    """The runs, one seed after the other, so that a stopped comparison has complete pairs."""
    text: str | None = common.tokenizer
    model = config.model
    if text is not None:
        path = folder / f"tokenizer-{_digest(text)}.json"
        import_module("vlmdsl.runtime.files").write_atomically(path, text)
        model = model.model_copy(update={"tokenizer": str(path)})
    plans = []
    for seed in seeds:
        train = config.train.model_copy(update={"seed": seed})
        for side, fields in zip(sides, common.maps, strict=True):
            data = config.data.model_copy(update={"map": fields})
            own = side.settings(config).model_copy(update={"model": model, "train": train, "data": data})
            identity = _digest(json.dumps(_identity(side, own, common), sort_keys=True))
            place = folder / side.name / f"seed-{seed}-{identity}"
            plans.append(_Plan(side, own.model_copy(update={"out": str(place)}), place))
    return plans


def _identity(side: _Side, config: RunConfig, common: Any) -> dict[str, Any]:
    """All that the numbers of a run depend on."""
    settings = config.model_dump(mode="json", exclude={"out": True, "tracking": True, "model": {"tokenizer"}})
    for title, section in settings.items():
        for name in () if title in PARTS else _WITHOUT_EFFECT:  # a stage may be called `keep`
            section.pop(name, None)
    return {
        "recipe": {**recipe_record(side.flows[0], {}), "name": ""},
        "settings": settings,
        "tokenizer": common.tokenizer or config.model.tokenizer,
        "data": common.data,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {"vlmdsl": installed_version(), "torch": version("torch")}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _run_all(plans: Sequence[_Plan], say: Callable[[str], None] | None) -> list[Run]:
    runs = []
    remark = remark_on_steps({plan.side.name: plan.side.steps(plan.config) for plan in plans})
    if say is not None and remark:
        say(f"note: {remark}")
    for number, plan in enumerate(plans, start=1):
        if say is not None:
            state = "already finished" if plan.finished else f"in {plan.folder}"
            say(f"run {number} of {len(plans)}: {plan.side.name}, seed {plan.config.train.seed}, {state}")
        try:
            runs.append(_run(plan))
        except (KeyboardInterrupt, SystemExit):
            if say is not None:
                say("the same command continues the comparison")
            raise
    return runs


def _run(plan: _Plan) -> Run:
    """Run a plan: read the run if it is finished, resume it if it was stopped."""
    folders, files = import_module("vlmdsl.runtime.training.run_folder"), import_module("vlmdsl.runtime.files")
    marker, seconds = plan.folder / FINISHED, None
    if not plan.finished:
        started = time.perf_counter()
        trainer, fresh = _trainer(plan, folders.RunFolder(plan.folder))
        evaluation = trainer.fit().evaluation
        # A run that was stopped in between has no one time.
        seconds = round(time.perf_counter() - started, 1) if fresh else None
        files.write_json(marker, {"evaluation": evaluation, "seconds": seconds})
    records = import_module("vlmdsl.runtime.training.records")
    stored = files.read_json(
        marker, records.FinishedRun, help="remove it: the run then continues from its last checkpoint"
    ).plain()
    return Run(plan.side.name, plan.config.train.seed, plan.folder, stored["evaluation"], stored["seconds"])


def _trainer(plan: _Plan, folder: Any) -> tuple[Trainer, bool]:
    """The trainer of a run, and whether the run is a new one."""
    if os.path.lexists(folder.facts):
        return Trainer(resume=plan.folder), False
    if folder.checkpoints.exists():
        files = import_module("vlmdsl.runtime.files")
        raise files.damaged(folder.facts, "it is missing", f"remove {plan.folder} to train this run again")
    if plan.folder.is_dir():  # stopped before its first files were complete
        shutil.rmtree(plan.folder)
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    contender = plan.side.contender
    settings = {
        f"{section}.{name}" if isinstance(group, dict) else section: value
        for section, group in plan.config.model_dump().items()
        for name, value in (group.items() if isinstance(group, dict) else [("", group)])
    }
    trainer = Trainer(contender.recipe, expression=contender.expression, knobs=contender.knobs, settings=settings)
    return trainer, True


def _facts(sides: Sequence[_Side], config: RunConfig, data: Mapping[str, object]) -> dict[str, Any]:
    """What the runs have in common, and the recipes."""
    recipes = {
        side.name: {
            **recipe_record(side.flows[0], side.contender.knobs),
            "steps": side.steps(config),
            **({"text": str(side.contender.recipe)} if side.contender.expression else {}),
        }
        for side in sides
    }
    settings = config.model_dump(mode="json", exclude={"out": True, "train": {"seed"}})
    return {"steps": config.train.steps, "data": data, "recipes": recipes, "settings": settings, "versions": _versions()}


def _write(result: Comparison) -> None:
    """`comparison.json`, `comparison.png` and `report.html` in the comparison's folder."""
    files = import_module("vlmdsl.runtime.files")
    files.write_json(result.folder / COMPARISON, result.to_json())
    drawing = import_module("vlmdsl.runtime.tracking.comparison")
    panels = []
    for measure in result.shown():
        values = {name: shares for name in result.contenders if (shares := result.values(name, measure)) is not None}
        levels = {
            which: level for which in ("chance", "untrained") if (level := result.baseline(which, measure)) is not None
        }
        panels.append(drawing.Panel(measure.replace("_", " ").replace(".", ", "), values, levels))
    picture = result.folder / "comparison.png"
    drawing.draw_comparison(panels, result.contenders, picture, f"{result.steps}, a dot per seed")
    import_module("vlmdsl.api.report").write_comparison_report(result)
