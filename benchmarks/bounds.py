"""How good a recipe must be at what it is for: the measures of each kind of evidence, their bounds and their words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vlmdsl.runtime.data.shapes import WRONG_KINDS

__all__ = ["KINDS", "Bound", "Kind", "Shares", "Shown", "aimed", "shown"]

Shares = Mapping[str, float]
"""A measure of the `trained` and the `untrained` model, by `chance`, and by the other baselines that need no learning."""

STANDARD_ERRORS = 3
"""Accuracies must be this many standard errors of a difference of shares above the untrained model's."""


@dataclass(frozen=True)
class Bound:
    """What a measure must reach: fixed limits, and limits beside baselines, by the name of the baseline.

    A baseline that was not measured is a limit that is not reached; without limits a measure is only reported. `title` is
    what it is called in place of its path.
    """

    at_least: float | None = None
    at_most: float | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    """Baseline -> at least how many times as much."""
    above: Mapping[str, float] = field(default_factory=dict)
    """Baseline -> at least how much more."""
    below: tuple[str, ...] = ()
    """Baselines that are larger."""
    learned: bool = False
    """Whether it must be `STANDARD_ERRORS` above the untrained model."""
    title: str = ""

    def holds(self, shares: Shares, samples: int) -> bool:
        """Whether a measure reaches it, which was measured on so many samples."""
        own = shares["trained"]
        limits = [
            *(own >= factor * shares.get(name, math.inf) for name, factor in self.times.items()),
            *(own >= margin + shares.get(name, math.inf) for name, margin in self.above.items()),
            *(own < shares.get(name, -math.inf) for name in self.below),
        ]
        if self.learned:
            before = shares["untrained"]
            error = math.sqrt((before * (1 - before) + own * (1 - own)) / samples)
            limits.append(own - before > STANDARD_ERRORS * error)
        floor = -math.inf if self.at_least is None else self.at_least
        ceiling = math.inf if self.at_most is None else self.at_most
        return floor <= own <= ceiling and all(limits)

    def words(self) -> str:
        """As in `at least 22.0 %, 2 times untrained`."""
        words = [] if self.at_least is None else [f"at least {percent(self.at_least)}"]
        words += [] if self.at_most is None else [f"at most {percent(self.at_most)}"]
        words += [f"{factor:g} times {name}" for name, factor in self.times.items()]
        words += [f"{100 * margin:g} points above {name}" for name, margin in self.above.items()]
        words += [f"below {name}" for name in self.below]
        words += [f"{STANDARD_ERRORS} standard errors above untrained"] if self.learned else []
        return ", ".join(words)


@dataclass(frozen=True)
class Kind:
    """Something that a recipe can be for, by the measures of `evaluation.json` that show it, each with its bound.

    A kind that is `incidental` is the aim of a recipe only where it has no other.
    """

    bounds: Mapping[str, Bound]
    incidental: bool = False


_TOLD_APART = Bound(learned=True)
_RETRIEVED = Bound(times={"chance": 20}, learned=True)
KINDS: dict[str, Kind] = {
    "retrieval": Kind({"retrieval.image_to_text.R@1": _RETRIEVED, "retrieval.text_to_image.R@1": _RETRIEVED}),
    "classes": Kind({"nearest_neighbours.top-1": _TOLD_APART, "linear_probe.top-1": _TOLD_APART}, incidental=True),
    "dropped patches": Kind(
        {
            "reconstruction.error": Bound(
                at_most=0.5, below=("untrained",), title="error of dropped patches, over that of the mean image"
            ),
            "reconstruction.unseen": Bound(title="share of that error in objects without a visible pixel"),
        }
    ),
    "names of boxes": Kind(
        {
            "grounding.accuracy": Bound(at_least=0.4, learned=True, title="names of boxes, accuracy"),
            "grounding.within a prompt": Bound(title="names of boxes, among those of one prompt"),
            "grounding.mAP": Bound(at_least=0.4, title="names of boxes, mAP over given boxes"),
            "grounding.AP": Bound(title="predicted boxes with names, AP"),
            "grounding.AP50": Bound(title="AP50"),
        }
    ),
    "codes": Kind(
        {
            "codes.accuracy": Bound(
                times={"nearest visible": 1.3, "most frequent visible": 1.3, "constant": 1.3},
                learned=True,
                title="codes of masked patches of the foreground",
            )
        }
    ),
    "grouping": Kind(
        {
            "grouping.IoU": Bound(
                at_least=0.22,
                times={"chance": 2, "untrained": 2},
                title="overlap (IoU) of objects with the best groups, one each",
            )
        }
    ),
    "captions": Kind(
        {
            "captions.token accuracy": Bound(
                at_least=0.85, above={"blind": 0.25}, title="captions, next tokens given the true ones before them"
            ),
            "captions.counts": Bound(at_least=0.95, title="written captions with the right number of objects"),
            "captions.colours": Bound(at_least=0.85, title="with the right colours"),
            "captions.shapes": Bound(at_least=0.45, title="with the right shapes"),
            "captions.scenes": Bound(at_least=0.40, title="with all objects right"),
        }
    ),
    "matching": Kind(
        {
            "matching.balanced": Bound(at_least=0.8, title="pairs and mined negatives told apart"),
            "matching.pairs": Bound(at_least=0.7, title="pairs recognised"),
            "matching.mined": Bound(at_least=0.7, title="mined negatives recognised"),
            "matching.balanced random": Bound(at_least=0.92, title="pairs and random negatives told apart"),
            **{f"matching.wrong {kind}": Bound(title=f"texts with a wrong {kind} recognised") for kind in WRONG_KINDS},
        }
    ),
    "masked words": Kind(
        {
            "masked_words.accuracy": Bound(above={"text alone": 0.12}, title="masked words"),
            "masked_words.colours": Bound(at_least=0.75, title="masked colours"),
        }
    ),
}
"""Every kind of evidence, one per row: a measure of `evaluation.json` is shown if it is in a kind of this table."""


@dataclass(frozen=True)
class Shown:
    """A measure of an evaluation that is in a kind; `prefix` names its stage or flow, if it has one."""

    prefix: str
    own: str
    kind: Kind

    @property
    def bound(self) -> Bound:
        """What it must reach."""
        return self.kind.bounds[self.own]

    @property
    def title(self) -> str:
        """What it is called."""
        where = f"{self.prefix.replace('.', ' ')}: " if self.prefix else ""
        return where + (self.bound.title or self.own.replace("_", " ").replace(".", ", "))

    def text(self, shares: Shares) -> str:
        """In words, beside its baselines."""
        others = ", ".join(f"{name} {percent(value)}" for name, value in shares.items() if name != "trained")
        return f"{self.title} {percent(shares['trained'])} ({others})"


def shown(measures: Collection[str]) -> dict[str, Shown]:
    """Those of the measures that are in a kind."""
    matching = {
        measure: Shown(measure.removesuffix(own).rstrip("."), own, kind)
        for measure in measures
        for kind in KINDS.values()
        for own in kind.bounds
        if measure == own or measure.endswith(f".{own}")
    }
    return {measure: matching[measure] for measure in measures if measure in matching}


def aimed(
    measures: Mapping[str, Shown], asked_of: Mapping[str, str] | None = None, not_asked: Collection[str] = ()
) -> list[str]:
    """The measures that a recipe is for: all but incidental ones, or these where there are no others. A kind that is asked
    of one stage is not asked of the others, and one that is `not_asked` of none."""
    stages = asked_of or {}

    def is_aim(measure: Shown) -> bool:
        kind = next(name for name, kind in KINDS.items() if kind is measure.kind)
        return kind not in not_asked and (kind not in stages or measure.prefix == f"stages.{stages[kind]}")

    remaining = {name: measure for name, measure in measures.items() if is_aim(measure)}
    return [name for name, measure in remaining.items() if not measure.kind.incidental] or list(remaining)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"
