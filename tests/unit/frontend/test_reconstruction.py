"""What is decoded and reconstructed, and what is not, with the argument that is at fault."""

from __future__ import annotations

import pytest

import vlmdsl

LET = "recipe r(image: Image)\nlet hidden = random(75%)\nlet view = augment(image)\n"
VALID = {
    "pixels of the image": LET + "minimize reconstruct(decode(drop(image, hidden)), pixels(image), at=hidden)",
    "pixels of the dropped image": LET
    + "let seen = drop(image, hidden)\nminimize reconstruct(decode(seen), pixels(seen), at=hidden)",
    "pixels after a tanh": LET
    + 'minimize reconstruct(decode(drop(image, hidden), output="tanh"), pixels(image), at=hidden)',
    "a view": LET + "minimize reconstruct(decode(drop(view, hidden)), pixels(view), at=hidden)",
    "the tower's output": LET + "minimize reconstruct(decode(vision(drop(image, hidden))), pixels(image), at=hidden)",
}
FAULTS = {
    "nothing is dropped": (LET + "minimize reconstruct(decode(image), pixels(image), at=hidden)", "V0405", "image"),
    "normalised patches after a tanh": (
        LET
        + 'minimize reconstruct(decode(drop(image, hidden), output="tanh"), pixels(image, normalised="patch"), at=hidden)',
        "V0405",
        "target",
    ),
    "another mask": (
        LET + "minimize reconstruct(decode(drop(image, hidden)), pixels(image), at=random(75%))",
        "V0405",
        "at",
    ),
    "dropped twice": (
        LET
        + "let seen = drop(drop(image, share=50%), hidden)\nminimize reconstruct(decode(seen), pixels(image), at=hidden)",
        "V0405",
        "at",
    ),
    "another image": (
        LET + "minimize reconstruct(decode(drop(view, hidden)), pixels(image), at=hidden)",
        "V0405",
        "target",
    ),
    "states are not pixels": (
        LET + 'minimize reconstruct(decode(drop(image, hidden), output="states"), pixels(image), at=hidden)',
        "V0301",
        "decoded",
    ),
    "an image is not a target": (
        LET + "minimize reconstruct(decode(drop(image, hidden)), image, at=hidden)",
        "V0301",
        "target",
    ),
    "an image is not decoded": (
        LET + "minimize reconstruct(drop(image, hidden), pixels(image), at=hidden)",
        "V0301",
        "decoded",
    ),
    "small crops": (
        LET
        + "let crops = multi_crop(image, n=1, small=1)\n"
        + "minimize reconstruct(decode(drop(crops[1], hidden)), pixels(crops[1]), at=hidden)",
        "V0405",
        "image",
    ),
    "a width without heads": (
        LET + "minimize reconstruct(decode(drop(image, hidden), width=20, heads=8), pixels(image), at=hidden)",
        "V0405",
        "width",
    ),
    "a head's features": (
        LET
        + "encoder one = project(vision, out=6)\n"
        + "minimize reconstruct(decode(one(drop(image, hidden))), pixels(image), at=hidden)",
        "V0304",
        "decode",
    ),
    "pixels are not a loss": (LET + "minimize pixels(image)", "V0308", "Pixels"),
    "decoded patches are not compared": (
        LET + "minimize mean(score(decode(drop(image, hidden)), image))",
        "V0301",
        "Patches[B, P, C]",
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_it_compiles(name: str) -> None:
    assert not [each for each in vlmdsl.check(VALID[name]) if each.severity == "error"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_diagnostic(name: str) -> None:
    recipe, code, named = FAULTS[name]
    (fault,) = [each for each in vlmdsl.check(recipe) if each.severity == "error"]
    assert fault.code == code
    assert named in fault.message


def test_its_formula_names_the_decoder_the_mask_and_the_pixels() -> None:
    formula = vlmdsl.compile(
        VALID["pixels of the image"].replace("pixels(image)", 'pixels(image, normalised="patch")')
    ).latex()
    assert r"\frac{1}{|M|} \sum_{(i,p) \in M} \frac{1}{C} \lVert \mathrm{decoder}" in formula
    assert r"\mathrm{unit}\left( \mathrm{image}_i \right)[p] \rVert^{2}" in formula
