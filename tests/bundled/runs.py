"""Tiny runs of every bundled recipe on the built-in scenes: what a new recipe is tried with too, without a word about it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from vlmdsl.api.driver import build
from vlmdsl.ir import Program
from vlmdsl.runtime.data import open_source, requirements
from vlmdsl.runtime.modules.towers import shared, text, vit

__all__ = [
    "ALBEF_CORE",
    "DATA",
    "DROPPED_CONTEXT",
    "NOISY",
    "PER_SAMPLE",
    "SETTINGS",
    "columns_of",
    "hyper_parameters_of",
    "program_of",
    "with_tiny_towers",
]

DATA = "shapes:samples=120,size=16"
SETTINGS: dict[str, object] = {
    "train.batch": 8,
    "train.compile": False,
    "train.device": "cpu",
    "train.log_every": 1,
    "schedule.warmup_steps": 2,
    "model.image_size": 16,
    "model.dimension": 12,
    "model.text_length": 12,
    "data.val": ("shapes:samples=12,size=16",),
    "data.reference_share": 0.3,
    "tracking.report": False,  # laying out the formula takes as long as the run
}
ALBEF_CORE = """vlo 1
recipe albef_core(image: Image, text: Text)
encoder fusion = fuse(depth=1)
let selected = random(15%)
let tau = learned(0.07, form="direct", name="temperature")
let logits = similarity(image, text) / tau
let wrong_text = mine(logits, along="rows")
let wrong_image = mine(logits, along="columns")
minimize {
  itc: contrast(image, text, temperature=tau)
  itm: matched(text | image, text | take(image, wrong_image), take(text, wrong_text) | image)
  mlm: mlm(mask(text, selected) | image)
}
"""
"""The core of ALBEF: a recipe whose second stage is called with what its first one computes."""
DROPPED_CONTEXT = """vlo 1
recipe dropped_context(image: Image, text: Text)
encoder fusion = fuse(depth=1)
let hidden = random(60%)
let seen = drop(image, hidden)
let wrong = mine(similarity(image, text), along="columns")
minimize {
  pixels: reconstruct(decode(seen, depth=1, width=16, heads=2), pixels(image), at=hidden)
  itc: contrast(seen, text)
  itm: matched(text | seen, text | take(image, wrong))
}
"""
"""Texts given some of the patches of their image, and all patches of another one: contexts of two lengths."""
PER_SAMPLE = """vlo 1
recipe kept(image: Image, text: Text, temperature = 0.1, gamma = 0.3, rate = 0.5)
let logits = similarity(image, text) / temperature
let own = score(image, text) / temperature
let g = exp(logsumexp(exclude_pairs(logits)) - own) / (samples - 1)
let u = running_mean(g, per="sample", momentum=1 - gamma)
let loss = cross_entropy(logits, targets=paired, along="rows")
let noise = mixture(running_mean(loss, per="sample", momentum=0), name="noise")
minimize {
  pairs: temperature * mean((1 - rate * noise) * g / u)
  usual: contrast(image, text, weight=1 - noise)
}
"""
"""Numbers kept per sample of the data set: averages as of SogCLR, and noise as a mixture finds it after every epoch."""
NOISY = """vlo 1
recipe noisy(image: Image, text: Text, temperature = 0.1)
encoder captioner = text_decoder(depth=1, width=16, heads=2)
encoder fusion = fuse(depth=1)
encoder elder = ema(language, momentum=0.9)
let m = random(50%)
let masked = mask(text, m)
let caption = swap(text, share=50%)
let own = matches(caption)
let agreement = exp(score(image, text))
let noise = mixture(running_mean(agreement, per="sample", momentum=0), component="smaller", start=0.5, name="noise")
let wrong = mine(similarity(image, text) / temperature, along="rows")
minimize {
  captions: next_token(linear(captioner(text, image)), text, weight=1 - noise, where=own, reduction="sample")
  words:    mlm(masked | image, weight=agreement)
  taught:   distill(linear(masked), linear(elder(masked)), at=m, where=own, weight=stop(agreement))
  samples:  token_loss(linear(masked), text, at=m, reduction="sample")
  pixels:   reconstruct(decode(drop(image, m), depth=1, width=16, heads=2), pixels(image), at=m, weight=agreement)
  pairs:    matching(caption | image, own, weight=agreement)
  mined:    matched(text | image, take(text, wrong) | image, where=own, weight=agreement)
}
"""
"""Losses of words, patches and pairs in which noisy samples count less, by a number kept per sample or one that learns."""
SMALL = {"hidden": 16, "out": 10, "bottleneck": 6, "clusters": 10, "size": 20, "k": 3, "row_height": 8, "momentum": 0.9}
SMALL |= {"depth": 1, "width": 16, "heads": 2, "entries": 12, "queries": 6, "words_depth": 1}
SMALL |= {"pixels_depth": 1, "pixels_width": 16, "pixels_heads": 2}
"""Values of hyper-parameters whose defaults are for large runs: heads, queues. No batch fills a queue of 20 evenly."""
STAND_INS = {"Text": "template(phrases)", "Regions": "grid(image)", "Segments": "superpixels(image)", "Label": "hash(text)"}
"""What stands in for a field that the scenes have no column for, by its kind."""


@cache
def program_of(recipe: str) -> Program:
    return build(recipe, knobs=hyper_parameters_of(recipe)).planned


def hyper_parameters_of(recipe: str) -> dict[str, object]:
    """The sizes of a recipe, small."""
    return {name: value for name, value in SMALL.items() if name in _hyper_parameters(recipe)}


@cache
def _hyper_parameters(recipe: str) -> frozenset[str]:
    return frozenset(name for name, _ in build(recipe).written.knobs)


def columns_of(program: Program) -> dict[str, str]:
    """Field -> what stands in for it."""
    lacking = [need for need in requirements(program) if need.field not in _columns() and not need.optional]
    return {need.field: STAND_INS[need.kind] for need in lacking}


@cache
def _columns() -> frozenset[str]:
    return frozenset(open_source(DATA).columns)


def with_tiny_towers(patch: pytest.MonkeyPatch) -> None:
    """Makes the towers that a run builds if it says nothing of them smaller still."""
    eye = replace(vit.PRESETS["tiny"], width=16)
    patch.setitem(vit.PRESETS, "tiny", eye)
    patch.setitem(text.PRESETS, "tiny", replace(text.PRESETS["tiny"], width=16))
    patch.setitem(shared.PRESETS, "tiny", replace(shared.PRESETS["tiny"], image=eye))
