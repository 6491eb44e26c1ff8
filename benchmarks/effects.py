"""Effects that hold on small data, as comparisons paired by seed: what `vlmdsl compare` is for, and what to expect of it.

`python benchmarks/effects.py [--effects phrasing] [--seeds 4] [--steps 300]` trains what is not trained yet (about a quarter
of an hour on two CPU cores), writes `benchmarks/results/effects.json` and a picture for each effect beside it. An effect
counts as shown if the interval of the paired difference in R@5 leaves out zero, on the side that was expected, in both
directions.

Each effect was chosen because it is large at this size. Nothing follows for the order of methods on other data: that order
changes with the backbone, the amount of data and what else is augmented.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vlmdsl
from vlmdsl.api.compare import Comparison, Contender

RESULTS = Path(__file__).resolve().parent / "results"
DIRECTIONS = ("retrieval.image_to_text", "retrieval.text_to_image")
SETTINGS: dict[str, object] = {"train.batch": 64, "train.compile": False, "train.log_every": 50}


@dataclass(frozen=True)
class Effect:
    """A claim, the data on which it should hold, and the recipes: the first one is what the others should be better than."""

    claim: str
    data: str
    contenders: tuple[Contender, ...]


AUGMENTED = Contender('contrast(augment(image, pipeline="crop"), text)', expression=True, name="augmented")
TWO_PATHS = Contender(
    """
recipe two_paths(image: Image, text: Text, caption: Text)
minimize {
  raw: contrast(image, text)
  clean: contrast(image, caption)
}
""",
    expression=True,
    name="two_paths",
)
EFFECTS = {
    "phrasing": Effect(
        "rewrites help where the training texts are phrased in one way and the held-out texts in many",
        "shapes:samples=2000,single_template=true",
        (Contender("clip"), Contender("laclip")),
    ),
    "few_pairs": Effect(
        "augmentation and self-supervision of images help where there are few pairs",
        "shapes:samples=250",
        # The head is as wide as suits a tower of 64 features; the authors' is for 384 and more.
        (Contender("clip"), AUGMENTED, Contender("slip", knobs={"hidden": 256, "out": 64})),
    ),
    "wrong_texts": Effect(
        "a path over short captions that always fit helps where half of the texts belong to other images",
        "shapes:samples=2000,noise=0.5",
        (Contender("clip"), TWO_PATHS),
    ),
}


def study(effect: Effect, seeds: int, steps: int, out: Path) -> tuple[Comparison, dict[str, Any]]:
    """The comparison of one effect, and what it comes to."""
    result = vlmdsl.compare(
        effect.contenders, seeds=seeds, data=[effect.data], steps=steps, settings=SETTINGS, out=out, say=_say
    )
    record = result.to_json()
    shown = {name: _shown(result, name) for name in result.contenders[1:]}
    measures = {name: record["measures"][name] for name in record["measures"] if name.endswith((".R@1", ".R@5", ".top-1"))}
    facts = {
        "claim": effect.claim,
        "data": effect.data,
        "recipes": {name: _text(record, name) for name in result.contenders},
    }
    return result, {**facts, "seeds": record["seeds"], "steps": steps, "shown": shown, "measures": measures}


def _shown(result: Comparison, contender: str) -> bool:
    differences = [result.difference(contender, f"{direction}.R@5") for direction in DIRECTIONS]
    return all(difference is not None and difference.separable and difference.mean > 0 for difference in differences)


def _text(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The recipe by its text or name, and the hyper-parameters that were set."""
    recipe = record["recipes"][name]
    return {"recipe": recipe.get("text", recipe["name"]).strip(), "knobs": recipe["given_knobs"]}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(names: Sequence[str], seeds: int, steps: int, out: Path, results: Path) -> bool:
    """Study some effects and write what they come to; whether all are shown."""
    file = results / "effects.json"
    stored = json.loads(file.read_text(encoding="utf-8"))["effects"] if file.is_file() else {}
    for name in names:
        result, effect = study(EFFECTS[name], seeds, steps, out / name)
        stored[name] = {"date": datetime.now(UTC).date().isoformat(), "versions": result.facts["versions"], **effect}
        shutil.copy(result.folder / "comparison.png", results / f"effects-{name}.png")
        content = {"command": "python benchmarks/effects.py", "settings": SETTINGS, "effects": dict(sorted(stored.items()))}
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name}: {EFFECTS[name].claim}\n{result.to_text()}")
        print(*(f"{contender}: {'shown' if held else 'NOT shown'}" for contender, held in effect["shown"].items()), sep="\n")
        print(flush=True)
    return all(held for name in names for held in stored[name]["shown"].values())


def table(results: Path) -> str:
    """What was found, as the table of README.md: R@5 of both directions, means over the seeds and paired differences."""
    effects = json.loads((results / "effects.json").read_text(encoding="utf-8"))["effects"]
    lines = ["| data | recipe | image to text, R@5 | text to image, R@5 |", "|---|---|---|---|"]
    for effect in effects.values():
        measures = [effect["measures"][f"{direction}.R@5"]["recipes"] for direction in DIRECTIONS]
        for place, recipe in enumerate(measures[0]):
            data = f"`{effect['data']}`" if place == 0 else ""
            cells = " | ".join(_cell(measure[recipe]) for measure in measures)
            lines.append(f"| {data} | {recipe} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(interval: dict[str, Any]) -> str:
    mean = f"{100 * interval['mean']:.1f} %"
    if "difference" not in interval:
        return mean
    difference = interval["difference"]
    return f"{mean} ({100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effects", nargs="+", choices=EFFECTS, default=list(EFFECTS), metavar="EFFECT")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/effects"), help="where the runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing: print the table of README.md")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.results), end="")
        return 0
    return 0 if run(arguments.effects, arguments.seeds, arguments.steps, arguments.out, arguments.results) else 1


if __name__ == "__main__":
    sys.exit(main())
