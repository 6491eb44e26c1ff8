"""Does every bundled recipe train? Small models, small data, one run each: evidence that it works, none on how good it is.

`python benchmarks/evidence.py [--recipes clip laclip] [--again]` writes `benchmarks/results/evidence.json`, a recipe at a
time; what is there for the same recipe and scale is not run again. A recipe takes one to three minutes of one CPU core, as
its entry says (`seconds`). Each is

- trained on 64 fixed pairs, which a recipe that pairs images with texts must come to tell apart, and one that names boxes,
  writes captions or matches images with texts must do this for, above 90 % (`overfit`, as `vlmdsl overfit` judges),
- trained for 300 steps on the built-in scenes and measured on scenes held out, beside the untrained model and beside
  baselines that need no learning (`learns`), by what it is for: `bounds.py` has the measures and what they must reach,
- trained for 20 steps on OpenMoji, if its shards are in `../shared/data/openmoji`, with real columns for its fields, or
  on scenes composed of its drawings, if it takes boxes (`openmoji`); for more where held-out drawings are measured.

Where settings had to be tried for a recipe (`Scale.tried` says how many), `--choose` measures one of them on held-out
scenes that are for choosing only, and writes nothing; results are of other scenes, which the choice has not seen.

The exit code is 1 if one of these is not as expected.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from bounds import KINDS, aimed, percent, shown
from columns import OPENMOJI_COLUMNS, OPENMOJI_SCENES_COLUMNS, SHAPES_COLUMNS
from identity import identity
from runs import SETTINGS, begun, columns_of, losses, train
from scale import CHOOSING, PAIRS, Before, Scale, Steps
from scales import SCALES

import vlmdsl
from vlmdsl.api.comparison import measures_of
from vlmdsl.api.driver import build_flows
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import requirements
from vlmdsl.runtime.data.specification import held_out
from vlmdsl.runtime.training.overfitting import LEARNED, Attempt

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "evidence.json"
PICTURES = ROOT / "docs" / "images" / "recipes"
TEXT_ALONE = ROOT / "benchmarks" / "text_alone.vlo"
MASKED_WORDS = "masked_words."
ONE_PATCH = {"model.image_encoder": "vit:tiny", "model.image_size": 8}
"""All patches of a blank image say the same, so that a text alone needs one of them."""
OPENMOJI = ROOT.parent / "shared" / "data" / "openmoji"

TOP_1 = 0.99


def evidence(recipe: str, steps: Steps) -> dict[str, Any]:
    """The entry of one recipe in the result file."""
    started = _core_seconds()
    scale = SCALES.get(recipe, Scale())
    record: dict[str, Any] = {
        **identity(recipe, steps),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
    }
    checks = {"overfit": _overfit, "learns": _learns, "openmoji": _openmoji}
    with begun(scale) as start:
        for name, check in checks.items():
            if name == "openmoji" and not OPENMOJI.is_dir():
                continue
            try:
                record[name] = check(recipe, scale, scale.steps.get(name, getattr(steps, name)), start)
            except DiagnosticError as error:
                reason = error.diagnostics[0]
                record[name] = {"passed": False, "statement": f"{name}: stopped by {reason.code}: {reason.message}."}
    return record | {"seconds": round(_core_seconds() - started, 1)}


def with_pairs_again(entry: Mapping[str, Any], recipe: str, steps: Steps) -> dict[str, Any]:
    """The entry with a new result of the 64 pairs; what else it has must be of the same recipe and scale.

    Its `seconds` are those that it had and those of the new run, so that the whole entry takes less.
    """
    started, scale = _core_seconds(), SCALES.get(recipe, Scale())
    made_of = {**identity(recipe, steps), "versions": versions()}
    others = {name: value for name, value in made_of.items() if name != "pair_columns"}
    others["steps"] = {**made_of["steps"], "overfit": entry.get("steps", {}).get("overfit")}
    if {**entry, **others} != entry:
        raise SystemExit(f"{recipe}: recipe, scale or versions are not those of the entry; run all of it `--again`")
    with begun(scale) as start:
        overfit = _overfit(recipe, scale, made_of["steps"]["overfit"], start)
    today = datetime.now(UTC).date().isoformat()
    seconds = round(entry["seconds"] + _core_seconds() - started, 1)
    return {**entry, **made_of, "date": today, "overfit": overfit, "seconds": seconds}


def _core_seconds() -> float:
    """What this process and those that load batches for it took of one core, however busy the machine is."""
    return sum(os.times()[:4])  # user and system; children count once they have ended, as loaders have after a run


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("vlmdsl", "torch")}


def _overfit(recipe: str, scale: Scale, steps: int, start: Mapping[str, object]) -> dict[str, Any]:
    """What `vlmdsl overfit` finds of 64 fixed samples; every stage has so many steps, or those of its own."""
    of_stages: dict[str, object] = {f"stages.{stage}.train.steps": own for stage, own in scale.stages_of_pairs.items()}
    stages = vlmdsl.overfit(
        recipe,
        samples=PAIRS,
        knobs=scale.knobs,
        data=[scale.pairs],
        map=columns_of(recipe, {**SHAPES_COLUMNS, **scale.pair_columns}),
        settings={**SETTINGS, **scale.settings, **of_stages, **start},
        steps=steps,
        advise=False,
    ).stages
    apart, by_heart, loss = _told_apart(scale, stages), _by_heart(stages), losses(stages[-1].records, steps)
    aims = aimed(shown(by_heart), scale.asked_of, scale.not_by_heart)
    passed = not any(attempt.stopped for attempt in stages) and all(by_heart[name] > LEARNED for name in aims)
    ask = f" (more than {percent(LEARNED)} asked for)"
    words = [
        f"{measure.title} {percent(by_heart[name])}{ask if name in aims else ''}"
        for name, measure in shown(by_heart).items()
    ]
    if apart:
        passed &= min(apart.values()) > TOP_1
        named = len(apart) > 1 or scale.overfits
        shares = ", ".join(percent(share) + (f" ({term})" if named else "") for term, share in apart.items())
        over = f" on average over {scale.records} batches" if scale.records > 1 else ""
        words = [f"in-batch top-1 {shares}{over}", *words, f"loss {loss['first']:.3f} to {loss['last']:.3f}"]
    else:
        passed &= loss["last"] < loss["highest"]  # a queue that fills makes the task harder at first
        why = f" ({scale.aim})" if scale.aim else ""
        words.append(f"loss at most {loss['highest']:.3f}, in the end {loss['last']:.3f}{why}")
    of = "" if scale.pairs == Scale.pairs or scale.pairs.startswith(scale.scenes) else f" of `{scale.pairs}`"
    lengths = "".join(f"{own} of {stage} and " for stage, own in scale.stages_of_pairs.items())
    statement = f"{PAIRS} fixed pairs{of}, {lengths}{steps} steps{_after(scale)}: {'; '.join(words)}."
    statement += "".join(f" Reported only: {kind}, since {why}." for kind, why in scale.not_by_heart.items())
    results = {name: values for name, values in (("accuracy", apart), ("measures", by_heart)) if values}
    return {"passed": passed, **results, "loss": loss, "statement": statement}


def _told_apart(scale: Scale, stages: Sequence[Attempt]) -> dict[str, float]:
    """The in-batch top-1 of the terms that must tell the pairs apart, by term."""
    metrics = [record for attempt in stages for record in attempt.records]
    names = list(dict.fromkeys(name for record in metrics for name in record if name.endswith(".accuracy")))
    every = {name.removesuffix(".accuracy"): _last_mean(metrics, name, scale.records) for name in names}
    return {term: share for term, share in every.items() if scale.overfits is None or term in scale.overfits}


def _by_heart(stages: Sequence[Attempt]) -> dict[str, float]:
    """What was measured of the samples of all stages, by name as in `evaluation.json`."""
    return {
        (f"stages.{attempt.stage}.{name}" if attempt.stage and attempt is not stages[-1] else name): value
        for attempt in stages
        for name, value in attempt.measures.items()
    }


def _last_mean(metrics: Sequence[Mapping[str, float]], name: str, records: int) -> float:
    """The mean over the last records that have it: those of other flows do not."""
    return fmean([record[name] for record in metrics if name in record][-records:])


def _after(scale: Scale) -> str:
    return f" after {' and '.join(map(_earlier_run, scale.before))}" if scale.before else ""


def _earlier_run(before: Before) -> str:
    chosen = ", ".join(f"`{name}={value}`" for name, value in {**before.knobs, **before.settings}.items())
    return f"{before.steps} of `{before.recipe}`{' with ' + chosen if chosen else ''}"


def _learns(recipe: str, scale: Scale, steps: int, start: Mapping[str, object], *, choosing: bool = False) -> dict[str, Any]:
    data = held_out_scenes(scale, choosing=choosing)
    columns = {**SHAPES_COLUMNS, **scale.columns}
    of_stages: dict[str, object] = {f"stages.{stage}.train.steps": own for stage, own in scale.stages.items()}
    of_stages |= {f"stages.{stage}.data.train": own for stage, own in scale.scenes_of.items()}
    run = train(recipe, scale, scale.scenes, columns, steps, {**data, **of_stages, **start})
    evaluation = run["evaluation"]
    measures = shown(measures_of(evaluation))
    shares = {name: _beside_baselines(evaluation, name) for name in measures}
    if words := [name for name, measure in measures.items() if measure.own.startswith(MASKED_WORDS)]:
        alone = _text_alone(scale, steps, data)
        for name in words:
            shares[name]["text alone"] = alone[measures[name].own.removeprefix(MASKED_WORDS)]
    aims = aimed(measures, scale.asked_of, scale.not_asked)
    passed = bool(aims) and all(measures[name].bound.holds(shares[name], evaluation["samples"]) for name in aims)
    words = "; ".join(measure.text(shares[name]) for name, measure in measures.items()) or "nothing is measured"
    bounds = {measures[name].bound.words() for name in aims} - {""}
    mapped = "".join(f", `{name}` from `{column}`" for name, column in scale.columns.items())
    learned_from = "scenes" if (scale.scenes, mapped) == (Scale.scenes, "") else f"`{scale.scenes}`{mapped}"
    taken = " and ".join(f"{own} of {stage}" for stage, own in scale.stages.items())
    learned_from += "".join(
        f", {stage} on {' and '.join(f'`{own}`' for own in scenes)}" for stage, scenes in scale.scenes_of.items()
    )
    statement = f"{taken or steps} steps{_after(scale)} on {learned_from}, {evaluation.get('samples', 0)} held out: {words}."
    statement += f" Asked for: {'; '.join(sorted(bounds))}." if bounds else ""
    statement += "".join(f" The {kind} are asked of the stage {stage}." for kind, stage in scale.asked_of.items())
    statement += "".join(f" Reported only: {kind}, since {why}." for kind, why in scale.not_asked.items())
    statement += f" {_chosen(scale.tried)}" if scale.tried else ""
    return {"passed": passed, "measures": shares, "statement": statement} | (
        {} if choosing else _kept(recipe, run["pictures"])
    )


def _text_alone(scale: Scale, steps: int, settings: Mapping[str, object]) -> dict[str, float]:
    """How well a model that was trained by itself predicts masked words without seeing an image: for so many steps, or those
    that the scale says are enough."""
    columns = {"image": "blank(image)", "text": scale.columns.get("text", "text")}
    every = {**scale.settings, **settings, **scale.text_alone, **ONE_PATCH}
    plain = {name: value for name, value in every.items() if not name.startswith(("stages.", "flows."))}
    share = {"share": scale.knobs["words"]} if "words" in scale.knobs else {}
    alone = replace(scale, knobs=share, settings=plain)
    run = train(str(TEXT_ALONE), alone, scale.scenes, columns, scale.steps.get("text alone", steps))
    return dict(run["evaluation"]["masked_words"])


def _kept(recipe: str, pictures: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Puts the pictures of a run where the page of recipes shows them, in place of earlier ones; their names, if any."""
    for path in PICTURES.glob(f"{recipe}.*.png"):
        path.unlink()
    for name, content in pictures.items():
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{recipe}.{name}").write_bytes(content)
    return {"pictures": [f"{recipe}.{name}" for name in sorted(pictures)]} if pictures else {}


def _chosen(tried: int) -> str:
    which = "one setting was tried" if tried == 1 else f"of {tried} settings one was chosen"
    return f"Before, {which}, on other held-out scenes."


def held_out_scenes(scale: Scale, *, choosing: bool) -> dict[str, Any]:
    """The settings of held-out scenes: those for `choosing` among settings, or those that results are of.

    A recipe for which nothing was tried has the scenes of its data.
    """
    if not scale.tried:
        return {}
    seed = CHOOSING if choosing else scale.reported
    sources: dict[str, Any] = {"data.val": scale.settings.get("data.val", held_out(scale.scenes))}
    sources |= {f"stages.{stage}.data.val": held_out(scenes) for stage, scenes in scale.measured_on.items()}
    return {
        name: tuple(f"{spec}{',' if ':' in spec else ':'}seed={seed}" for spec in specs) for name, specs in sources.items()
    }


def _beside_baselines(evaluation: Mapping[str, Any], measure: str) -> dict[str, float]:
    """A measure of the trained and the untrained model, by chance, and by the other baselines that it has."""
    path, _, own = measure.rpartition(".")
    group: Any = evaluation
    for name in path.split("."):
        group = group[name]
    besides = {name: group.get(name, {}) for name in ("untrained", "chance")} | group.get("baselines", {})
    return {name: values[own] for name, values in {"trained": group, **besides}.items() if own in values}


def _openmoji(recipe: str, scale: Scale, steps: int, _: Mapping[str, object]) -> dict[str, Any]:
    kinds = {need.kind for built in build_flows(recipe) for need in requirements(built.planned)}
    which, shards, of_fields = ("OpenMoji", "openmoji-{}-*.tar", {**OPENMOJI_COLUMNS, **scale.drawings})
    if "Boxes" in kinds:
        which, shards, of_fields = ("composed scenes of OpenMoji", "scenes-{}-*.tar", OPENMOJI_SCENES_COLUMNS)
    held_out = {"data.val": (str(OPENMOJI / shards.format("val")),)} if scale.measures_drawings else None
    data = str(OPENMOJI / shards.format("train"))
    run = train(recipe, scale, data, of_fields, steps, held_out, measured=held_out is not None)
    of_last_stage = losses(run["metrics"], steps)
    columns = columns_of(recipe, of_fields)
    mapped = ", ".join(f"`{name}` from `{column}`" for name, column in columns.items())
    head = f"{steps} steps on {which}{' with ' + mapped if mapped else ''}: "
    record = {"passed": math.isfinite(of_last_stage["last"]), "columns": columns, "loss": of_last_stage}
    statement = f"{head}loss {of_last_stage['first']:.3f} to {of_last_stage['last']:.3f}."
    if held_out is None:
        return record | {"statement": statement}
    evaluation = run["evaluation"]
    measures = shown(measures_of(evaluation))
    shares = {name: _beside_baselines(evaluation, name) for name in measures}
    own = [shares[name] for name, measure in measures.items() if measure.kind is KINDS[scale.measures_drawings]]
    better = all(share["trained"] > value for share in own for name, value in share.items() if name != "trained")
    words = "; ".join(measure.text(shares[name]) for name, measure in measures.items())
    statement += f" {evaluation['samples']} held out: {words}. Asked for: {scale.measures_drawings} above all baselines."
    return record | {"passed": record["passed"] and bool(own) and better, "measures": shares, "statement": statement}


def write(result: Path, recipe: str, entry: Mapping[str, Any]) -> None:
    """Put one entry into the file, in the order of the names; nothing is lost if this is killed."""
    entries = read(result) | {recipe: dict(entry)}
    content = {"command": "python benchmarks/evidence.py", "recipes": dict(sorted(entries.items()))}
    partial = result.with_name(f".partial-{result.name}")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, result)


def read(result: Path) -> dict[str, Any]:
    """The entries in the file; none if there is no file."""
    return dict(json.loads(result.read_text(encoding="utf-8"))["recipes"]) if result.is_file() else {}


def choose(recipes: Sequence[str], steps: Steps) -> int:
    """Print what recipes learn, measured on the scenes for choosing settings; 1 if it is not enough."""
    passed = True
    for recipe in recipes:
        scale = SCALES.get(recipe, Scale())
        with begun(scale) as start:
            learned = _learns(recipe, scale, scale.steps.get("learns", steps.learns), start, choosing=True)
        passed &= learned["passed"]
        print(f"{recipe:12} {'ok  ' if learned['passed'] else 'NOT '} {learned['statement']}")
    return int(not passed)


def main() -> int:
    names = [card.name for card in vlmdsl.recipes()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="RECIPE")
    parser.add_argument("--again", action="store_true", help="run what is there already, too")
    parser.add_argument("--pairs-again", action="store_true", help="run only the 64 pairs again")
    parser.add_argument(
        "--choose", action="store_true", help="measure what recipes learn on the scenes for choosing settings"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    for name, steps in (("overfit", 100), ("learns", 300), ("openmoji", 20)):
        parser.add_argument(f"--{name}-steps", type=int, default=steps)
    arguments = parser.parse_args()
    steps = Steps(arguments.overfit_steps, arguments.learns_steps, arguments.openmoji_steps)
    if arguments.choose:
        return choose(arguments.recipes, steps)
    for recipe in arguments.recipes:
        entry = read(arguments.result).get(recipe, {})
        if arguments.pairs_again:
            entry = with_pairs_again(entry, recipe, steps)
        elif arguments.again or {**entry, **identity(recipe, steps)} != entry:
            entry = evidence(recipe, steps)
        write(arguments.result, recipe, {**entry, "because": SCALES.get(recipe, Scale()).because})
    entries = {recipe: read(arguments.result)[recipe] for recipe in arguments.recipes}
    failed = False
    for recipe, entry in entries.items():
        for check in ("overfit", "learns", "openmoji"):
            if check in entry:
                failed |= not entry[check]["passed"]
                print(f"{recipe:12} {'ok  ' if entry[check]['passed'] else 'NOT '} {entry[check]['statement']}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
