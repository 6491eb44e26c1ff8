"""Prediction of tokens in a recipe: what `linear` and `token_loss` mean, and what is at fault where they do not fit."""

from __future__ import annotations

import pytest

import vlmdsl
from vlmdsl.ir.digest import digest

SIGNATURE = (
    "recipe r(image: Image, text: Text, other: Text)\nlet m = random(15%)\nlet n = random(15%)\nlet view = augment(image)\n"
    'encoder elder = ema(vision)\nencoder reader = fuse(depth=1, attention="none", name="reader")\n'
)
DECODED = 'linear(decode(drop(image, m), output="states"), size=4)'
ONE = "encoder one = shared(vision, language)\n"

FAULTS = {
    "another text": ("token_loss(linear(mask(text, m)), other, at=m)", "V0405"),
    "another mask": ("token_loss(linear(mask(text, m)), text, at=n)", "V0405"),
    "no mask": ("token_loss(linear(text), text, at=m)", "V0405"),
    "patches have no tokens to predict": ("token_loss(linear(image, size=4), text)", "V0301"),
    "logits of patches need a size": ("token_loss(linear(image), text)", "V0405"),
    "a head has no tokens": ("token_loss(linear(project(language)(text)), text)", "V0304"),
    "features are not logits": ("token_loss(text, text)", "V0301"),
    "logits are not a loss": ("linear(text)", "V0308"),
    "a teacher of another text": ("distill(linear(mask(text, m)), linear(other), at=m)", "V0405"),
    "a teacher of a text masked again": ("distill(linear(mask(text, m)), linear(mask(text, n)), at=m)", "V0405"),
    "a masked text for the teacher alone": ("distill(linear(text), linear(mask(text, m)))", "V0405"),
    "a teacher's other mask": ("distill(linear(mask(text, m)), linear(mask(text, m)), at=n)", "V0405"),
    "a teacher of features": ("distill(linear(mask(text, m)), text, at=m)", "V0301"),
    "a teacher's patches of another image": (f"distill({DECODED}, linear(view, size=4), at=m)", "V0405"),
    "a teacher of other entries": (f"distill({DECODED}, linear(elder(image), size=5), at=m)", "V0405"),
    "patches that another mask dropped": (f"distill({DECODED}, linear(elder(image), size=4), at=n)", "V0405"),
    "patches without a mask": (f"distill({DECODED}, linear(elder(image), size=4))", "V0405"),
    "a teacher of words for patches": (f"distill({DECODED}, linear(text), at=m)", "V0301"),
    "decoded pixels are not states": (
        "distill(linear(decode(drop(image, m)), size=4), linear(image, size=4), at=m)",
        "V0301",
    ),
    "a text with a head": ("mlm(reader(project(language)(mask(text, m))))", "V0301"),
    "one weight for all samples": ("token_loss(linear(text), text, weight=2)", "V0405"),
    "a weight that is the same for all samples": ("mlm(mask(text, m), weight=learned(0.5))", "V0405"),
    "a condition is not a weight": ("mlm(mask(text, m), weight=score(image, text) < 0)", "V0301"),
    "a weight is not a condition": ("mlm(mask(text, m), where=score(image, text))", "V0301"),
    "a text is not a weight": ("mlm(mask(text, m), weight=other)", "V0301"),
    "a transform on fusion": ('token_loss(linear(mask(text, m) | image, transform="gelu"), text, at=m)', "V0405"),
    "a name for a tower's head": ('token_loss(linear(text, name="words"), text)', "V0405"),
    "two heads of a tower": (
        'mlm(mask(text, m)) + token_loss(linear(mask(text, n), transform="gelu"), text, at=n)',
        "V0405",
    ),
    "a teacher's head is another": (
        'distill(linear(mask(text, m), transform="gelu"), linear(ema(language)(mask(text, m))), at=m)',
        "V0405",
    ),
    "all of the target moved": ("token_loss(linear(text), text, smoothing=1)", "V0405"),
}


def errors(loss: str) -> list[str]:
    """Codes of what is wrong with a recipe; that it does not use some of its fields is not."""
    return [each.code for each in vlmdsl.check(f"{SIGNATURE}minimize {loss}") if each.severity == "error"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_diagnostic(name: str) -> None:
    loss, code = FAULTS[name]
    assert errors(loss) == [code]


@pytest.mark.parametrize(
    ("encoded", "encoder"),
    [
        ("mask(text, m)", ""),
        ("one(join(image, mask(text, m)))", ONE),
        ("mask(text, m) | image", ""),
        ("stop(mask(text, m))", ""),
    ],
    ids=["alone", "joined", "given its image", "stopped"],
)
def test_masked_language_modelling_is_the_token_loss_of_what_the_mask_selected(encoded: str, encoder: str) -> None:
    header = f"recipe r(image: Image, text: Text)\n{encoder}let m = random(15%)\nminimize contrast(image, text) + "
    short, long = (
        vlmdsl.compile(f"{header}{loss}", compiled=False).program
        for loss in (f"mlm({encoded})", f"token_loss(linear({encoded}), text, at=m)")
    )
    assert digest(short) == digest(long)


@pytest.mark.parametrize(
    "loss",
    ["token_loss(linear(mask(texts, m)), texts, at=m)", "reconstruct(decode(drop(images, m)), pixels(images), at=m)"],
)
def test_what_two_sets_do_not_have_in_common_is_given_from_one(loss: str) -> None:
    """A call over two sets is over all pairs, and a text is compared with its own tokens only."""
    header = "recipe r(image: Image, text: Text, caption: Text)\nlet m = random(15%)\nlet images = augment(image, n=2)\n"
    header += "let texts = each((text, caption))\n"
    (fault,) = [each for each in vlmdsl.check(f"{header}minimize {loss}") if each.severity == "error"]
    assert (fault.code, "def f(x)" in fault.help[0]) == ("V0405", True)
    alone = loss.replace("texts", "x").replace("images", "x")
    written = f"{header}def f(x) = {alone}\nminimize f({'texts' if 'texts' in loss else 'images'})"
    assert not [each for each in vlmdsl.check(written) if each.severity == "error"]


def test_towers_have_a_head_each_and_one_for_all_flows() -> None:
    header = 'encoder words = separate(language, name="words")\nlet m = random(15%)\nlet n = random(15%)\n'
    plain, transformed = "mlm(mask(text, m))", 'token_loss(linear({}, transform="gelu"), text, at=n)'
    other = transformed.format("words(mask(text, n))")
    assert not vlmdsl.check(f"recipe r(text: Text)\n{header}minimize {plain} + {other}")
    flows = "recipe r(text: Text)\n{}flow a(text) share 50% {{ minimize {} }}\nflow b(text) share 50% {{ minimize {} }}"
    recipe = flows.format(header.partition("\n")[2], plain, transformed.format("mask(text, n)"))
    (fault,) = vlmdsl.check(recipe)
    assert (fault.code, "`language` has one head over words" in fault.message) == ("V0405", True)
    same = recipe.replace(plain, transformed.format("mask(text, n)"))
    assert [each.code for each in vlmdsl.check(same) if each.severity == "error"] == []


def test_what_the_tokens_are_is_an_input_of_its_own() -> None:
    recipe = f"{SIGNATURE}let z = linear(mask(text, m))\nminimize token_loss(z, text, at=m) + token_loss(z, text)"
    inputs = vlmdsl.compile(recipe, compiled=False).inputs
    assert list(inputs) == ["text_masked_vocabulary", "text_masked_targets", "text_masked_ids"]
    assert inputs["text_masked_ids"].axes == ("B", "L")


def test_the_formula_says_what_is_done_to_targets_and_over_what_the_mean_is() -> None:
    options = 'smoothing=10%, over="others", reduction="sample"'
    (plain, smoothed) = (
        vlmdsl.compile(f"{SIGNATURE}minimize token_loss(linear(mask(text, m)), text, at=m{more})", compiled=False).latex()
        for more in ("", f", {options}")
    )
    assert r"\frac{1}{|M|} \sum_{(i,k) \in M}" in plain
    assert r"\frac{0.1}{V - 1} \sum_{v \neq \mathrm{text}_i[k]}" in smoothed
    assert r"\frac{1}{B} \sum_i \frac{1}{|M_i|}" in smoothed


def test_a_weight_of_1_and_all_samples_are_the_same_as_neither() -> None:
    header = f"{SIGNATURE}minimize contrast(image, text) + "
    plain, weighed = (
        vlmdsl.compile(f"{header}mlm(mask(text, m){more})", compiled=False).program for more in ("", ", weight=1, where=all")
    )
    assert digest(plain) == digest(weighed)


def test_a_weight_for_all_samples_is_refused_with_what_to_write() -> None:
    recipe = f"{SIGNATURE}minimize mlm(mask(text, m), weight=2)"
    (error,) = (each for each in vlmdsl.check(recipe) if each.code == "V0405")
    assert "cancels out" in error.message
    assert "`NUMBER * mlm(...)`" in error.help[0]
    assert recipe[error.primary.span.start : error.primary.span.end] == "2"


@pytest.mark.parametrize(
    ("more", "enough"),
    [("", True), (", smoothing=0.1", True), (", where=good", False), (", weight=sure", False)]
    + [(f', reduction="{reduction}"', reduction == "token") for reduction in ("token", "sample", "sum")],
)
def test_logits_of_the_selected_tokens_are_enough_for_a_plain_mean_over_tokens(more: str, enough: bool) -> None:
    """They are packed over the whole batch, so that a row is not a sample."""
    recipe = (
        "recipe r(text: Text, good: Flag, sure: Number)\nlet m = random(15%)\n"
        f"minimize token_loss(linear(mask(text, m)), text, at=m{more})"
    )
    (stream,) = vlmdsl.compile(recipe, compiled=False).streams
    assert stream.asked_only is enough
