"""What is mined and taken, and what is not, with the place that is at fault."""

from __future__ import annotations

import pytest

import vlmdsl

SIGNATURE = "recipe r(image: Image, text: Text, label: Label, a: Flag, w: Number)\n"
LET = SIGNATURE + 'let n = mine(similarity(image, text), along="rows")\n'

_TAKEN = "minimize mean(score(image, take(text, n, queue=words)))"
KEPT = """recipe r(image: Image, text: Text, key: Key)
let texts = queue(text, size=9)
let keys = queue(key, size=9)
let words = queue(text, size=9, keep="inputs")
let n = mine(unite(similarity(image, text), similarity(image, texts)), along="rows")
"""

FAULTS = {
    "mined of a queue": (
        'let n = mine(similarity(image, queue(text, size=9)), along="rows")\nminimize mean(score(image, take(text, n)))',
        "V0303",
    ),
    "of several picks only pooled features": (
        LET.replace('"rows"', '"rows", k=2') + "minimize mean(score(image.tokens, take(text.tokens, n), by=tokenmean))",
        "V0305",
    ),
    "a floor of the hardest": (
        LET.replace('"rows"', '"rows", choose="hardest", floor=1%') + "minimize mean(score(image, take(text, n)))",
        "V0405",
    ),
    "an image is not a matrix": ('let n = mine(image, along="rows")\nminimize mean(score(image, take(text, n)))', "V0301"),
    "a matrix is not taken": (LET + "minimize mean(score(image, take(similarity(image, text), n)))", "V0301"),
    "a fetched text is not masked": (LET + "minimize mlm(take(mask(text, random(15%)), n))", "V0301"),
    "picks of a queue that does not keep inputs": (KEPT + "minimize mean(score(image, take(text, n)))", "V0301"),
    "a queue of another size": (
        KEPT + 'let fewer = queue(text, size=8, keep="inputs")\nminimize mean(score(image, take(text, n, queue=fewer)))',
        "V0303",
    ),
    "picks of the batch alone": (
        KEPT + 'let of_batch = mine(similarity(image, text), along="rows")\n'
        "minimize mean(score(image, take(text, of_batch, queue=words)))",
        "V0303",
    ),
    "a queue of something else": (KEPT + "minimize mean(score(text, take(image, n, queue=words)))", "V0301"),
    "columns of a queue": (KEPT.replace('"rows"', '"columns"') + "minimize mean(score(image, take(text, n)))", "V0405"),
    "random inputs": (KEPT.replace('keep="inputs"', 'keep="inputs", start="random"') + _TAKEN, "V0405"),
    "own entries of a batch": (
        KEPT + "minimize mean(logsumexp(exclude_pairs(similarity(image, text), key=key, keys=keys)))",
        "V0303",
    ),
    "keys without those of samples": (
        KEPT + "minimize mean(logsumexp(exclude_pairs(similarity(image, texts), keys=keys)))",
        "V0405",
    ),
    "keys that are labels": (
        """recipe r(image: Image, text: Text, key: Key, label: Label)
let keys = queue(label, size=9)
minimize mean(logsumexp(exclude_pairs(similarity(image, queue(text, size=9)), key=key, keys=keys)))
""",
        "V0301",
    ),
    "picks are not a loss": (LET + "minimize n", "V0308"),
}


def errors(recipe: str) -> list[str]:
    """Codes of what is wrong with a recipe; that it does not use some of its fields is not."""
    return [each.code for each in vlmdsl.check(recipe) if each.severity == "error"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_diagnostic(name: str) -> None:
    recipe, code = FAULTS[name]
    assert errors(recipe) == [code]


@pytest.mark.parametrize(
    "loss",
    [
        "mean(score(image, take(text, n)))",
        "mean(score(image, take(text.pooled, n)))",
        "mean(score(image, take(text, n).pooled))",
        "mean(score(image, stop(take(text, n))) - score(take(stop(text), n), image))",
        "mean(score(image.tokens, take(text, n).tokens, by=tokenmax))",
        "mean(score(image.tokens, take(text, n), by=tokenmean))",
        "mean(score(image, text) * take(w, n), over=take(a, n))",
        "contrast(image, text, targets=same(take(label, n)))",
        "mean(take(score(image, text), n), over=picked(n))",
    ],
)
def test_everything_that_is_one_per_sample_can_be_taken(loss: str) -> None:
    assert errors(LET + f"minimize {loss}") == []


def test_what_is_picked_beside_the_batch_is_encoded() -> None:
    assert errors(KEPT + _TAKEN) == []


@pytest.mark.parametrize(
    "view", ["mask(text, random(15%))", "drop(image, random(50%))", "swap(text, share=10%)", "image.pooled"]
)
def test_only_whole_inputs_are_kept(view: str) -> None:
    recipe = KEPT.replace('queue(text, size=9, keep="inputs")', f'queue({view}, size=9, keep="inputs")') + _TAKEN
    (fault,) = (each for each in vlmdsl.check(recipe) if each.severity == "error")
    assert "an Image or a Text, whole" in fault.message


def test_mined_negatives_alone_teach_nothing() -> None:
    assert errors(LET + "minimize mean(take(stop(score(image, text)), n))") == ["V0501"]
