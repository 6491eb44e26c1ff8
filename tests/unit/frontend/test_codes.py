"""Codes of patches and swapped texts in a recipe: what does not fit is a diagnostic at its place."""

from __future__ import annotations

import pytest

import vlmdsl

HEADER = """recipe r(image: Image, other: Image, text: Text, match: Flag)
encoder tokenizer = codebook(size=8)
encoder fusion = fuse(depth=1)
encoder one = shared(vision, language)
let m = blocks()
let n = blocks()
let logits = linear(mask(image, m), size=8)
"""
FAULTS = {
    "codes of another image": ("token_loss(logits, codes(other, by=tokenizer), at=m)", "V0405"),
    "another mask": ("token_loss(logits, codes(image, by=tokenizer), at=n)", "V0405"),
    "logits of another size": ("token_loss(linear(mask(image, m), size=9), codes(image, by=tokenizer), at=m)", "V0405"),
    "logits of a text": ("token_loss(linear(text), codes(image, by=tokenizer))", "V0301"),
    "logits without a size": ("token_loss(linear(image), codes(image, by=tokenizer))", "V0405"),
    "a size for a text": ("token_loss(linear(text, size=8), text)", "V0405"),
    "a tokenizer of texts": ("token_loss(logits, codes(image, by=language), at=m)", "V0301"),
    "blocks of a text": ("mlm(mask(text, m))", "V0405"),
    "spans of an image": ("token_loss(linear(mask(image, spans()), size=8), codes(image, by=tokenizer))", "V0405"),
    "words of an image": ("token_loss(linear(mask(image, whole_words(15%)), size=8), codes(image, by=tokenizer))", "V0405"),
    "blocks are replaced": ("contrast(drop(image, m), text)", "V0405"),
    "a patch does not become another": ("contrast(mask(image, m, hidden=1), text)", "V0405"),
    "all patches": ("contrast(mask(image, random(100%)), text)", "V0405"),
    "the image joined with a text": ('token_loss(linear(one(join(image, text)), of="image", size=8), text)', "V0405"),
    "the image beside a text that attends to it": ('token_loss(linear(text | image, of="image", size=8), text)', "V0405"),
    "a text that is never swapped": ("contrast(image, text, queries=matches(text))", "V0405"),
    "a view is swapped": ("contrast(image, swap(rewrite(text, M=1)))", "V0405"),
    "what is not fused": ("matching(text, match)", "V0301"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_diagnostic(name: str) -> None:
    loss, code = FAULTS[name]
    errors = [each.code for each in vlmdsl.check(f"{HEADER}minimize {loss}") if each.severity == "error"]
    assert errors == [code]


def test_equal_maps_of_one_name_are_one() -> None:
    """And a mask that is named twice replaces the patches that it drops."""
    recipe = f"{HEADER}let c = codes(image, by=tokenizer)\nminimize token_loss(logits, c, at=m) + token_loss(logits, c)"
    program = vlmdsl.compile(recipe, compiled=False).program
    assert len([node for node in program.nodes() if node.operation == "apply"]) == 1
