"""Regions, words, boxes and patches that belong together, and those that do not, with the argument that is at fault."""

from __future__ import annotations

import pytest

import vlmdsl

LET = """recipe r(image: Image, page: Image, text: Text, boxes: Boxes, others: Boxes, phrases: Phrases)
let words = language(text_of(phrases))
let names = language(concepts(phrases, count=4))
let points = vision(image).tokens
let at = atss(points, boxes)
let wrong = mine(similarity(image, text), along="rows")
let hidden = random(50%)
let restored = decode(drop(image, hidden), width=16, heads=2, output="states")
"""
NUMBERS = 'token_head({}, out=4, name="boxes")'
MATCHED = LET + f'let places = {NUMBERS.format("points")}\nlet classes = token_head(points, out=33, name="positions")\n'
VALID = {
    "boxes of replaced patches": f"minimize giou({NUMBERS.format('vision(mask(image, hidden)).tokens')}, boxes, at=at)",
    "boxes of restored patches": f"minimize giou({NUMBERS.format('restored')}, boxes, at=atss(restored, boxes))",
    "regions of restored patches": "minimize focal(alignment(regions(restored, boxes), words), word_map(words, boxes))",
    "regions of a teacher": (
        "encoder elder = ema(vision)\nminimize focal(alignment(regions(elder(image), boxes), words), word_map(words, boxes))"
    ),
    "words that are masked": (
        "let seen = mask(text_of(phrases), hidden) | image\n"
        "minimize focal(alignment(points, seen.tokens), word_map(words, boxes, at=at))"
    ),
    "boxes of the other image": "minimize focal(alignment(regions(page, boxes), words), word_map(words, boxes))",
    "concepts of patches": "minimize focal(alignment(points, names) / learned(1), word_map(names, boxes, at=at))",
}
FAULTS = {
    "the boxes of two images": (
        (
            f"let at2 = atss(page, boxes)\nminimize giou({NUMBERS.format('points')}, boxes, at=at)"
            f" + giou({NUMBERS.format('page')}, boxes, at=at2)"
        ),
        "they are places in `image`",
    ),
    "a fused text that is fused": (
        "encoder fusion = fuse()\nminimize mlm(fusion(mask(text, hidden) | image))",
        "and its image",
    ),
    "patches of a mixture": (
        "minimize contrast(drop(mix(image, by=beta(1, 1)), hidden), text)",
        "mixed in the step",
    ),
    "codes of a mixture": (
        (
            "encoder tokenizer = codebook(size=8)\nlet mixed = mix(image, by=beta(1, 1))\n"
            "minimize token_loss(linear(mixed, size=8), codes(mixed, by=tokenizer))"
        ),
        "mixed in the step",
    ),
    "features of a codebook": (
        "encoder tokenizer = codebook(size=8)\nminimize contrast(tokenizer(image), text)",
        "no features",
    ),
    "the boxes of a crop": ("minimize giou(points, boxes, at=atss(vision(augment(image)).tokens, boxes))", "changed image"),
    "the boxes of a small crop": (
        (
            "let crops = multi_crop(image, n=1, small=1)\nlet x = crops[1]\n"
            "minimize focal(alignment(regions(x, boxes), words), word_map(words, boxes))"
        ),
        "changed image",
    ),
    "the boxes of dropped patches": (
        f"minimize giou({NUMBERS.format('vision(drop(image, hidden)).tokens')}, boxes, at=at)",
        "changed image",
    ),
    "the boxes of another sample": (
        f"minimize giou({NUMBERS.format('take(points, wrong)')}, boxes, at=at)",
        "another sample",
    ),
    "boxes at a pooler's queries": ("minimize giou(points, boxes, at=atss(pool(image, queries=4).tokens, boxes))", "pooler"),
    "three numbers for a box": ('minimize giou(token_head(points, out=3, name="b"), boxes, at=at)', "4 numbers"),
    "features for a box": ("minimize giou(points, boxes, at=at)", "4 numbers per token, and there are the features"),
    "four numbers for one": (f"minimize centreness({NUMBERS.format('points')}, boxes, at=at)", "1 number per token"),
    "two biases of a word": (
        (
            'let biased = word_bias(alignment(points, words), token_head(words, out=2, name="bias"))\n'
            "minimize focal(biased, word_map(words, boxes, at=at))"
        ),
        "1 number per token",
    ),
    "the words of another text": (
        "minimize focal(alignment(points, language(prompt(phrases))), word_map(words, boxes, at=at))",
        "another text",
    ),
    "the words of another tower": (
        (
            'encoder reader = separate(language, name="reader")\n'
            "minimize focal(alignment(points, reader(text_of(phrases))), word_map(words, boxes, at=at))"
        ),
        "another text",
    ),
    "logits of another sample's words": (
        "minimize focal(alignment(points, take(words, wrong)), word_map(words, boxes, at=at))",
        "another sample",
    ),
    "a map of another sample's words": (
        "minimize focal(alignment(regions(image, boxes), words), word_map(take(words, wrong), boxes))",
        "another sample",
    ),
    "the words of other boxes": (
        "minimize focal(alignment(regions(image, boxes), words), word_map(words, others))",
        "other boxes",
    ),
    "patches and boxes": ("minimize focal(alignment(points, words), word_map(words, boxes))", "WordMap[B, P, L]"),
    "concepts and words": ("minimize focal(alignment(points, names), word_map(words, boxes, at=at))", "WordMap[B, P, N]"),
    "patches that a teacher names": (
        "let logits = alignment(points, words)\nminimize region_distillation(logits, logits, boxes)",
        "logits of the boxes",
    ),
    "logits of dropped patches": (
        (
            "encoder tokenizer = codebook(size=8)\n"
            "minimize token_loss(linear(drop(image, hidden), size=8), codes(image, by=tokenizer), at=hidden)"
        ),
        "there are no logits",
    ),
    "a teacher without dropped patches": (
        (
            "encoder elder = ema(vision)\n"
            "minimize distill(linear(mask(image, hidden), size=8), linear(elder(drop(image, hidden)), size=8), at=hidden)"
        ),
        "there are no logits",
    ),
}
FAULTS_OF_MATCHING = {
    "three numbers for a box": (
        (
            'let at2 = match_boxes(classes, token_head(points, out=3, name="b"), word_map(words, boxes), boxes)\n'
            "minimize box_error(places, boxes, at=at2)"
        ),
        "4 numbers",
    ),
    "the words of other boxes": (
        "minimize box_error(places, boxes, at=match_boxes(classes, places, word_map(words, others), boxes))",
        "same boxes",
    ),
    "the words of patches": (
        "minimize box_error(places, boxes, at=match_boxes(classes, places, word_map(words, boxes, at=at), boxes))",
        "same boxes",
    ),
    "logits of another text": (
        (
            "let scores = alignment(points, language(prompt(phrases)))\n"
            "minimize box_error(places, boxes, at=match_boxes(scores, places, word_map(words, boxes), boxes))"
        ),
        "another text",
    ),
    "logits of regions": (
        (
            "let scores = alignment(regions(image, boxes), words)\n"
            "minimize box_error(places, boxes, at=match_boxes(scores, places, word_map(words, boxes), boxes))"
        ),
        "logits of the patches",
    ),
    "contrast with another text": (
        (
            "let at2 = match_boxes(classes, places, word_map(words, boxes), boxes)\n"
            "minimize token_contrast_loss(alignment(points, names), word_map(words, boxes, at=at2), boxes)"
        ),
        "WordMap[B, P, N]",
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_it_compiles(name: str) -> None:
    assert not [each for each in vlmdsl.check(LET + VALID[name]) if each.severity == "error"]


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [(LET + recipe, reason) for recipe, reason in FAULTS.values()]
    + [(MATCHED + recipe, reason) for recipe, reason in FAULTS_OF_MATCHING.values()],
    ids=[*FAULTS, *(f"matching by {name}" for name in FAULTS_OF_MATCHING)],
)
def test_a_fault_is_a_diagnostic(recipe: str, reason: str) -> None:
    (fault,) = [each for each in vlmdsl.check(recipe) if each.severity == "error"]
    assert fault.code in ("V0301", "V0405")
    assert reason in fault.message
