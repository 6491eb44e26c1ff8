"""What the small runs of `evidence.py` may need for a recipe, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CHOOSING", "PAIRS", "Before", "Scale", "Steps"]

PAIRS = 64
"""The fixed pairs that a recipe must come to tell apart, and the batch."""
CHOOSING, REPORTING = 0, 100
"""The seeds of the held-out scenes that settings are chosen by, and of those that results are of."""


@dataclass(frozen=True)
class Steps:
    """The length of the three runs."""

    overfit: int
    learns: int
    openmoji: int


@dataclass(frozen=True)
class Before:
    """So many steps of a bundled recipe at its own scale, but for these `knobs` and `settings`."""

    recipe: str
    steps: int
    knobs: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """What a recipe needs at this scale, and `because` of what.

    `overfits` are the terms whose in-batch top-1 must reach 99 %: None for all of them, empty where telling pairs apart
    is not the recipe's aim; `aim` then says what is. `settings` are of the run, `pairs` are the 64 pairs, `pair_columns`
    feed its fields there in place of the usual ones, `scenes` are what it learns from and, held out, is measured on, and
    `columns` feed its fields there; `steps` are the lengths of runs for which the usual one does not do (`text alone`: of
    the model without images beside masked words, which has the settings `text_alone` where those of the run are not for
    it), `stages` those of the stages of the run that shows what it learns, `stages_of_pairs` those of stages on the 64
    pairs that are longer or shorter there than the last one, `scenes_of` what stages of it learn from in place of `scenes`,
    and `measured_on` scenes whose held-out ones stages are measured on instead. On OpenMoji `drawings` feed fields from
    other columns than the usual ones, and `measures_drawings` is the kind of measure of held-out drawings that must be above
    its baselines. In-batch top-1 is the mean over the last `records` of the metrics: over several where each step draws
    other views, since one batch of 64 pairs knows it to a point and a half only. `before` are runs, each of which begins
    with the weights of the one before it (`model.init`), as do the runs on pairs and on scenes, where the authors begin with
    a pretrained tower, or where a setting changes on the way. `tried` is how many settings were measured on the scenes for
    choosing (`evidence.py --choose`) before the result, which is of other scenes; 0 where nothing was to be chosen, or was
    chosen before there were two sets of scenes, which `because` then says. `asked_of` is the stage that a kind of measure is
    asked of, where an earlier or a later one has that part without being for it; of other stages it is reported. Kinds that
    are `not_asked`, each for a reason, are reported of all stages: the recipe has that part without being for it; those that
    are `not_by_heart` are only reported of the 64 pairs. Other kinds are asked of every stage that has them. `reported` is
    the seed of the held-out scenes that results are of: another one where a setting was measured on the usual ones.
    """

    knobs: Mapping[str, object] = field(default_factory=dict)
    because: str = ""
    overfits: tuple[str, ...] | None = None
    aim: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    pairs: str = f"shapes:samples={PAIRS}"
    scenes: str = "shapes"
    columns: Mapping[str, str] = field(default_factory=dict)
    pair_columns: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    text_alone: Mapping[str, object] = field(default_factory=dict)
    stages: Mapping[str, int] = field(default_factory=dict)
    stages_of_pairs: Mapping[str, int] = field(default_factory=dict)
    scenes_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    measured_on: Mapping[str, str] = field(default_factory=dict)
    drawings: Mapping[str, str] = field(default_factory=dict)
    measures_drawings: str = ""
    records: int = 1
    before: tuple[Before, ...] = ()
    asked_of: Mapping[str, str] = field(default_factory=dict)
    not_asked: Mapping[str, str] = field(default_factory=dict)
    not_by_heart: Mapping[str, str] = field(default_factory=dict)
    tried: int = 0
    reported: int = REPORTING
