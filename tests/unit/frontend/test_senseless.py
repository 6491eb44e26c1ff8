"""What is well-formed and typed, and still cannot be meant: units, temperatures of zero, objectives without a gradient."""

from __future__ import annotations

import pytest

import vlmdsl
from vlmdsl.diagnostics import apply_safe_fixes


def codes(text: str) -> list[str]:
    return [diagnostic.code for diagnostic in vlmdsl.check(text, file="mine.vlo")]


@pytest.mark.parametrize(
    "zero",
    [
        "mean(row_sum(0 * similarity(image, text)))",
        "mean(row_mean(unite(0 * similarity(image, text), 0 * similarity(text, image))))",
    ],
)
def test_sums_of_zeros_teach_nothing(zero: str) -> None:
    assert "V0501" in codes(zero)


@pytest.mark.parametrize("number", ["10 steps", "5 epochs", "0.07 steps", "2k epochs", "10steps", "-3 steps"])
@pytest.mark.parametrize(
    "place",
    [
        "contrast(image, text, temperature={})",
        "{} * contrast(image, text)",
        "contrast(image, rewrite(text, M={}))",
        "let tau = {}\nminimize contrast(image, text, temperature=tau)",
        "recipe mine(image: Image, text: Text, tau = {})\nminimize contrast(image, text, temperature=tau)",
        "def unused(x, y = {}) = x\nminimize contrast(image, text)",
    ],
)
def test_no_value_is_a_duration(number: str, place: str) -> None:
    text = place.format(number)
    diagnostics = vlmdsl.check(text)
    (fault,) = [diagnostic for diagnostic in diagnostics if diagnostic.code == "V0412"]
    assert text[fault.primary.span.start : fault.primary.span.end] == number.lstrip("-")
    assert fault.help


@pytest.mark.parametrize("unit", ["epoch", "step", "Steps", "epochss", "ep", "K", "m", "percent"])
def test_the_safe_fix_of_a_unit_leaves_nothing_wrong(unit: str) -> None:
    for gap in ("", " "):
        text = f"contrast(image, text, temperature=7{gap}{unit})"
        diagnostics = vlmdsl.check(text, file="mine.vlo")
        assert [fault.code for fault in diagnostics] == ["V0110"]
        fixed = apply_safe_fixes(text, "mine.vlo", diagnostics)
        assert fixed == text or codes(fixed) == []


@pytest.mark.parametrize(
    ("temperature", "code"),
    [
        ("0", "V0410"),
        ("1 - 1", "V0410"),
        ("-0.07", "V0413"),
        ("1e-300", "V0413"),
        ("learned(1e-300)", "V0413"),
        ('learned(0, form="direct")', "V0413"),
        ('learned(-1, form="direct")', "V0413"),
        ('-learned(1, form="direct")', "V0413"),
        ('learned(1, form="direct") - 1', "V0413"),
        ('clamp(learned(1, form="direct"), upper=0)', "V0413"),
        ('min(learned(1, form="direct"), 0)', "V0413"),
        ('log(learned(1, form="direct"))', "V0413"),
        ('1 / learned(0, form="direct")', "V0410"),
    ],
)
def test_a_temperature_is_greater_than_zero(temperature: str, code: str) -> None:
    for call in ("contrast(image, text, temperature={})", "contrast(image, text, column_temperature={})"):
        assert codes(call.format(temperature)) == [code]
    assert codes(f"sigmoid_contrast(image, text, temperature={temperature})") == [code]
    assert codes(f"nt_xent(augment(image), image, temperature={temperature})") == [code]


@pytest.mark.parametrize(
    "temperature", ['learned(1, form="direct")', 'exp(learned(0, form="direct"))', "learned(0.07)", "3"]
)
def test_other_temperatures_are_correct(temperature: str) -> None:
    assert codes(f"contrast(image, text, temperature={temperature})") == []


@pytest.mark.parametrize(
    "objective",
    [
        "contrast(image, text, weight=0)",
        "0 * contrast(image, text)",
        "contrast(image, text) * (1 - 1)",
        "contrast(image, text, sim=0 * cosine)",
        "contrast(image, text, temperature=1) - contrast(image, text, temperature=1)",
        "contrast(stop(image), stop(text), temperature=0.1)",
        "mean(where(score(image, text) < 0, 1, 2))",
        "mean(clamp(score(image, text), lower=1, upper=1))",
        "mean(stop(score(image, text)))",
        "minimize {\n  a: 0 * contrast(image, text)\n  b: contrast(image, text, weight=0)\n}",
        "recipe mine(image: Image, text: Text, weight = 0)\nminimize weight * contrast(image, text)",
    ],
)
def test_an_objective_that_no_gradient_reaches_is_an_error(objective: str) -> None:
    assert codes(objective) == ["V0501"]


def test_a_term_that_is_zero_is_named() -> None:
    diagnostics = vlmdsl.check("minimize {\n  a: contrast(image, text)\n  b: contrast(image, text, weight=0)\n}")
    assert [(fault.code, fault.severity) for fault in diagnostics] == [("V0502", "warning")]
    assert "`b`" in diagnostics[0].message


def test_a_term_that_a_hyper_parameter_switches_off_is_not_reported() -> None:
    recipe = "recipe mine(image: Image, text: Text, share = {})\ndef level(x) = mean(score(x, text))\n"
    recipe += "minimize {{\n  a: contrast(image, text)\n  b: {} * level(image)\n}}\n"
    assert codes(recipe.format(0, "share")) == []
    assert codes(recipe.format(1, "0 * share")) == ["V0502"]


HEADS = "encoder p = project(vision, out=8)\nencoder q = project(language, out=8)\n"
MINED = """let wrong = mine(similarity(p(image), q(text)) / 0.1, along="rows")
minimize matched(text | image, take(text, wrong) | image)
"""
QUEUED = """let kept = queue(stop(p(image)), size=9)
let every = unite(similarity(q(text), stop(p(image))), similarity(q(text), kept))
minimize mean(cross_entropy(every, targets=paired, along="rows"))
"""
DETECTED = """recipe mine(image: Image, boxes: Boxes, phrases: Phrases)
let points = vision(image).tokens
let names = language(concepts(phrases, count=4))
let logits = alignment(points, names) / 1
let at = match_boxes(logits, token_head(points, out=4, name="boxes"), word_map(names, boxes), boxes)
minimize focal(logits, word_map(names, boxes, at=at))
"""


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        (
            f"{HEADS}{MINED}",
            ["the head `project` of `vision`", "the head `project` of `language`"],
        ),
        (
            f"{HEADS}minimize contrast(image, text, queries=score(p(image), q(text)) > 0)",
            ["the head `project` of `vision`", "the head `project` of `language`"],
        ),
        (
            f"{HEADS}{QUEUED}",
            ["the head `project` of `vision`"],
        ),
        (
            'contrast(image, text, targets=softmax(stop(similarity(image, text) / learned(0.1, name="w"))))',
            ["the learned number `w_log_scale`"],
        ),
        (DETECTED, ["the token head `boxes`"]),
    ],
    ids=["mined", "condition", "queue", "number", "matched boxes"],
)
def test_what_no_gradient_reaches_is_named(objective: str, parts: list[str]) -> None:
    faults = vlmdsl.check(objective)
    assert [(fault.code, fault.severity) for fault in faults] == [("V0510", "warning")] * len(parts)
    assert [fault.message for fault in faults] == [f"no step changes {part}: no gradient reaches it" for part in parts]


STAGED = """encoder p = project(vision, out=8)
stage one {
  minimize contrast(p(image), p(augment(image)))
}
stage two from one {
  minimize contrast(image, text, weight=exp(stop(score(p(image), p(image)))))
}
"""


@pytest.mark.parametrize(
    "objective",
    [
        "contrast(frozen(vision)(image), text)",
        "contrast(stop(image), text)",
        "encoder teacher = ema(vision)\nminimize contrast(image, text) + contrast(teacher(image), text)",
        "encoder p = project(vision, out=8)\nminimize {\n  a: contrast(image, text)\n  b: 0 * regress(p(image), image)\n}",
        STAGED,
    ],
    ids=["frozen", "stopped tower", "teacher", "zero weight", "earlier stage"],
)
def test_what_is_meant_to_stay_or_trained_elsewhere_is_not_named(objective: str) -> None:
    assert "V0510" not in codes(objective)


@pytest.mark.parametrize(
    ("objective", "argument"),
    [
        ("matching(swap(text) | image, matches(swap(text)))", "`truth` of `matching`"),
        ("matching(text | image, matches(swap(text)))", "`truth` of `matching`"),
        (
            "recipe m(image: Image, text: Text, own: Flag)\nminimize matching(swap(text) | image, own)",
            "`truth` of `matching`",
        ),
        ("contrast(image, text, queries=matches(swap(text)))", "`text` of `matches`"),
    ],
)
def test_what_is_said_of_swapped_texts_is_of_those_that_are_read(objective: str, argument: str) -> None:
    (fault,) = vlmdsl.check(objective)
    assert fault.code == "V0405"
    assert fault.message.startswith(argument)


@pytest.mark.parametrize("objective", ["contrast(stop(image), text)", "contrast(stop(image), stop(text))"])
def test_a_tower_or_a_learned_number_is_enough(objective: str) -> None:
    assert codes(objective) == []


def test_a_module_of_the_library_exists() -> None:
    recipe = "recipe mine(image: Image, text: Text)\nuse std.{}\nminimize contrast(image, text)"
    assert codes(recipe.format("contrast")) == []
    (fault,) = vlmdsl.check(recipe.format("contrst"))
    assert (fault.code, fault.help) == ("V0202", ("did you mean `std.contrast`?",))
    assert codes(recipe.format("contrast.more")) == ["V0202"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("learned(0.001, max_scale=100)", "a temperature of 0.001 is a scale of 1000, above `max_scale`, 100"),
        ("learned(5, min_scale=1)", "a temperature of 5 is a scale of 0.2, below `min_scale`, 1"),
        ('learned(5, form="direct", upper=1)', "the start is 5, above `upper`, 1"),
        ('learned(5, form="direct", lower=6)', "the start is 5, below `lower`, 6"),
    ],
)
def test_a_start_out_of_bounds_says_which_bound(call: str, words: str) -> None:
    (fault,) = vlmdsl.check(f"contrast(image, text, temperature={call})")
    assert fault.code == "V0407"
    assert words in fault.message
    assert fault.help[0].startswith("start with at ")


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("InfoNCE(image, text)", "`contrast`"),
        ("triplet(image, text)", "`hinge`"),
        ("contrast(image, text, tau=0.1)", "`temperature=...`"),
        ("contrast(image, text, label_smoothing=0.1)", "`targets=smooth(paired, epsilon=0.1)`"),
        ("contrast(image, caption)", "`text`"),
        ("contrst(image, text)", "`contrast`"),
    ],
)
def test_words_of_other_places_get_a_suggestion(text: str, help: str) -> None:
    (fault,) = vlmdsl.check(text)
    assert help in fault.help[0]


def test_short_words_are_not_compared_by_their_letters() -> None:
    (fault,) = vlmdsl.check("mae(image)")
    assert fault.help == ()


def test_a_hyper_parameter_beyond_all_numbers_is_refused() -> None:
    text = "recipe m(image: Image, text: Text, t = 1)\nminimize contrast(image, text, temperature=t)"
    for value in (10**400, float("inf"), float("nan"), True, "warm", None):
        (fault,) = vlmdsl.check(text, knobs={"t": value})
        assert fault.code == "V0409"


@pytest.mark.parametrize("number", ["1e39", "-1e39", "1e300", 'learned(1e39, form="direct")'])
def test_a_number_of_an_objective_fits_into_32_bits(number: str) -> None:
    assert codes(f"{number} * contrast(image, text)") == ["V0411"]
    assert codes(f"contrast(image, text, weight=1e38 + score(image, text) / (1e-300 + {number}))") == ["V0411"]


@pytest.mark.parametrize(
    "text",
    [
        "contrast(image, text, temperature=1 < 2)",
        "contrast(image, text, weight=1 < 2)",
        '("a" == "b") * contrast(image, text)',
        "-(1 < 2) * contrast(image, text)",
        "contrast(image, rewrite(text, M=1 == 1))",
        "contrast(image, text, temperature=complement(1 < 2))",
    ],
)
def test_a_truth_is_not_a_number(text: str) -> None:
    assert codes(text) in (["V0302"], ["V0405"])
    assert codes("contrast(image, text, weight=where(1 < 2, 1, 0.5))") == []


@pytest.mark.parametrize(
    "text",
    [
        'contrast(image, separate(language, name="vision")(text))',
        'contrast(separate(vision, name="a")(image), separate(language, name="a")(text))',
        'contrast(shared(vision, language, name="language")(image), text)',
    ],
)
def test_a_tower_is_of_one_kind(text: str) -> None:
    assert codes(text) == ["V0521"]
    assert codes('contrast(separate(vision, name="vision")(image), text)') == []


def test_encoders_that_need_one_another_are_an_error() -> None:
    text = (
        "recipe mine(image: Image)\nencoder a = project(b)\nencoder b = predict(a)\nlet views = augment(image, n=2)\n"
        "minimize contrast(a(views[0]), b(views[1]))"
    )
    assert codes(text) == ["V0205"]
