"""`overfit`: can a recipe learn a few fixed samples, and if it cannot, why not? Torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import check_steps, course, load_settings, parts_of, settings_of_call
from vlmdsl.api.tables import table_text
from vlmdsl.diagnostics.cells import plain
from vlmdsl.schema import DataSources, RunConfig

if TYPE_CHECKING:
    from rich.table import Table

    from vlmdsl.runtime.training.overfitting import Attempt

__all__ = ["Overfitting", "overfit"]

_STEPS = 200
_RATES = (10.0, 0.1, 100.0, 0.01)
"""Factors of the learning rate that are tried where the samples are not learned."""
_LONGER = 4
"""The factor of the number of steps that is tried where nothing else explains it."""


@dataclass(frozen=True)
class Overfitting:
    """What each stage learned of its samples, and why not more."""

    recipe: str
    stages: tuple[Attempt, ...]
    advice: tuple[str, ...]
    """Likely reasons, and what to do, where the samples are not learned."""

    @property
    def learned(self) -> bool:
        """Whether every stage learned its samples."""
        return all(attempt.learned for attempt in self.stages)

    def to_json(self) -> dict[str, Any]:
        """The same, as plain data."""
        stages = [{**asdict(attempt), "learned": attempt.learned} for attempt in self.stages]
        for stage in stages:
            del stage["records"]
        return {"recipe": self.recipe, "learned": self.learned, "advice": list(self.advice), "stages": stages}

    def to_text(self) -> str:
        """A line per term and measure, a verdict, and the likely reasons."""
        verdict = "the samples are learned" if self.learned else "the samples are NOT learned; likely reasons:"
        return plain("\n".join([table_text(self._table()), verdict, *(f"- {line}" for line in self.advice)]))

    def _table(self) -> Table:
        from rich.table import Table

        first = self.stages[0]
        table = Table(title=f"{self.recipe}: {first.samples} samples, {first.steps} steps")
        staged = len(self.stages) > 1
        for heading in ("stage", "term or measure") if staged else ("term or measure",):
            table.add_column(heading)
        for heading in ("first loss", "last loss", "accuracy"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for attempt in self.stages:
            for name, term in attempt.terms.items():
                accuracy = "" if term.accuracy is None else f"{term.accuracy:.1%}"
                learned = "falls" if term.accuracy is None else "learned"
                mark = learned if term.learned else f"NOT {learned.replace('falls', 'falling')}"
                names = (attempt.stage, name) if staged else (name,)
                table.add_row(*names, f"{term.first:.4g}", f"{term.last:.4g}", accuracy, mark)
            for name, value in attempt.measures.items():
                mark = "NOT learned" if name in attempt.low else "learned"
                names = (attempt.stage, name) if staged else (name,)
                table.add_row(*names, "", "", f"{value:.1%}", mark)
        return table


def overfit(
    recipe: str | Path,
    *,
    samples: int = 64,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    data: DataSources = (),
    val: DataSources = (),
    map: Mapping[str, str] | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
    steps: int | None = None,
    device: str | None = None,
    advise: bool = True,
) -> Overfitting:
    """Train each stage of a recipe on a few fixed samples, which a sound set-up learns within seconds.

    Contrastive terms must tell 90 % of the samples apart, and the losses of other terms must fall. What a recipe is for is
    measured of the samples in the end: 90 % of their boxes must get the right name, of the tokens of their captions be
    predicted, and of pairs and negatives be recognised. If they do not, the data, the towers and a step are searched for the
    reason, and other learning rates and more steps are tried. Wrong pairs (shuffled captions) can be learned by heart too:
    only held-out data shows them. Nothing is written.

    Args:
        recipe, expression, knobs, data, val, map, config, overrides, settings, device: as for `vlmdsl.train`, but that
            `val` is only set aside.
        samples: how many, spread evenly over the training data; they make one batch.
        steps: 200 unless a setting says otherwise; of each stage.
        advise: whether to look for the reason where they are not learned.

    >>> result = overfit("clip", samples=8, steps=30, data=["shapes:samples=32,size=16,distinct=true"])
    >>> [*result.stages[0].terms], result.learned
    (['contrast'], True)
    """
    if samples < 2:
        raise ValueError("a batch has at least 2 samples")
    built = build_flows(recipe, expression=expression, knobs=knobs)
    flags = settings_of_call(data, val, map, settings, steps, device)
    resolved = load_settings(config, overrides, flags, parts_of(built))
    check_steps(resolved, "all samples are in every batch")
    if "steps" not in resolved.train.model_fields_set:
        resolved = resolved.model_copy(update={"train": resolved.train.model_copy(update={"steps": _STEPS})})

    def attempts(config: RunConfig) -> list[Attempt]:
        results: list[Attempt] = import_module("vlmdsl.runtime.training.overfitting").attempts(
            course(built, config, compiled=False), samples
        )
        return results

    stages = attempts(resolved)
    advice: list[str] = []
    if advise and not all(attempt.learned for attempt in stages):
        advice = [_in_stage(attempt, cause) for attempt in stages for cause in attempt.causes]
        advice += [_in_stage(attempt, attempt.stopped) for attempt in stages if attempt.stopped]
        advice += _on_settings(stages, resolved, attempts, explained=bool(advice))
    return Overfitting(built[0].written.name, tuple(stages), tuple(advice))


def _on_settings(stages: Sequence[Attempt], config: RunConfig, attempts: Any, *, explained: bool) -> list[str]:
    """Whether they are learned with another learning rate or, where nothing else explains it, in more steps."""

    def learned_with(section: str, **changes: object) -> bool:
        changed = config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})
        return all(attempt.learned for attempt in attempts(changed))

    rate, steps = config.optimizer.learning_rate, config.train.steps
    for factor in _RATES:
        if learned_with("optimizer", learning_rate=factor * rate):
            which = "low" if factor > 1 else "high"
            return [f"the learning rate {rate:g} is too {which}: with `optimizer.learning_rate={factor * rate:g}` they are"]
    if not explained and learned_with("train", steps=_LONGER * steps):
        return [f"{steps} steps are too few: with `--steps {_LONGER * steps}` they are"]
    falling = [attempt for attempt in stages if attempt.falling]
    if falling:
        return [_in_stage(attempt, f"the loss still falls: try `--steps {4 * attempt.steps}`") for attempt in falling]
    tried = ", ".join(f"{factor * rate:g}" for factor in _RATES)
    others = f"the learning rate is not it: nor are they learned with {tried}"
    return [others if explained else f"{others}, nor in {_LONGER * steps} steps"]


def _in_stage(attempt: Attempt, reason: str) -> str:
    return f"stage {attempt.stage}: {reason}" if attempt.stage else reason
