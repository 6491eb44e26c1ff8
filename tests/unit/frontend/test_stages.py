"""Stages and flows of a file: what they hold, and what is said of those that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmdsl.api.check import check
from vlmdsl.api.driver import build, build_flows
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.frontend import load
from vlmdsl.ir import encoder_of, parameters
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.source import SourceText

RECIPES = Path(__file__).parents[2] / "end_to_end" / "recipes"
PAIRS = "flow pairs(image, text) share 85% {\n  minimize contrast(image, text)\n}\n"
TEXTS = "flow texts(text) {\n  minimize mlm(mask(text, random(15%)))\n}\n"
CONTRAST = "minimize contrast(image, text)"


def codes(text: str) -> list[str]:
    return [fault.code for fault in check(text)]


def test_a_file_without_blocks_is_one_stage_with_one_flow() -> None:
    (stage,) = load(SourceText("mine.vlo", CONTRAST)).stages
    (flow,) = stage.flows
    assert (stage.name, stage.starts_from, flow.name, flow.share) == ("", "", "", 1.0)


def test_stages_have_programs_of_their_own_and_say_what_they_start_from() -> None:
    warm, main = build_flows(RECIPES / "two_stages.vlo")
    assert [(one.stage.name, one.stage.starts_from) for one in (warm, main)] == [("warm", ""), ("main", "warm")]
    assert [term.name for term in main.planned.terms] == ["contrast", "words"]
    assert [node.string("name") for one in (warm, main) for node in parameters(one.planned)] == ["tau_log_scale"] * 2
    frozen = [
        {encoder_of(node).tower for node in one.planned.nodes() if node.operation is ENCODE and encoder_of(node).frozen}
        for one in (warm, main)
    ]
    assert frozen == [set(), {"vision"}]


def test_flows_have_their_share_and_only_their_fields() -> None:
    pairs, texts = build_flows(RECIPES / "two_flows.vlo")
    assert [one.flow.share for one in (pairs, texts)] == [0.85, 0.15]
    assert [[name for name, _ in one.written.fields] for one in (pairs, texts)] == [["image", "text"], ["text"]]


def test_a_flow_without_a_share_takes_the_rest() -> None:
    (stage,) = load(SourceText("mine.vlo", PAIRS + TEXTS)).stages
    assert [flow.share for flow in stage.flows] == pytest.approx([0.85, 0.15])


def test_one_of_several_objectives_is_chosen_by_name() -> None:
    recipe = RECIPES / "two_stages.vlo"
    assert [term.name for term in build(recipe, stage="main").written.terms] == ["contrast", "words"]
    for choice in ({}, {"stage": "mian"}, {"stage": "warm", "flow": "pairs"}):
        with pytest.raises(DiagnosticError) as caught:
            build(recipe, **choice)
        assert [fault.code for fault in caught.value.diagnostics] == ["V0221"]


WRONG = {
    "a stage from a later one": (f"stage a from b {{\n{CONTRAST}\n}}\nstage b from a {{\n{CONTRAST}\n}}", ["V0217"]),
    "a stage from itself": (f"stage a from a {{\n{CONTRAST}\n}}", ["V0217"]),
    "a stage from an unknown one": (f"stage a {{\n{CONTRAST}\n}}\nstage b from c {{\n{CONTRAST}\n}}", ["V0523", "V0217"]),
    "a stage that nothing starts from": (f"stage a {{\n{CONTRAST}\n}}\nstage b {{\n{CONTRAST}\n}}", ["V0523"]),
    "two stages of one name": (f"stage a {{\n{CONTRAST}\n}}\nstage a from a {{\n{CONTRAST}\n}}", ["V0120"]),
    "two flows of one name": (PAIRS + PAIRS.replace("85%", "15%"), ["V0120"]),
    "an empty stage": ("stage a {\n}", ["V0137"]),
    "minimize beside stages": (f"stage a {{\n{CONTRAST}\n}}\n{CONTRAST}", ["V0138"]),
    "minimize beside flows": (f"stage a {{\n{PAIRS}{CONTRAST}\n}}", ["V0138"]),
    "flows beside stages": (f"stage a {{\n{CONTRAST}\n}}\n{PAIRS}", ["V0138"]),
    "a function in a stage": ("stage a {\ndef f(x) = x\nminimize f(contrast(image, text))\n}", ["V0136"]),
    "a stage in a flow": (f"flow a {{\nstage b {{\n{CONTRAST}\n}}\n}}", ["V0137", "V0136"]),
    "a share above 100 %": (PAIRS.replace("85%", "850%") + TEXTS, ["V0139"]),
    "no share at all": (PAIRS.replace("85%", "0%") + TEXTS, ["V0139"]),
    "a share in steps": (PAIRS.replace("85%", "85 steps") + TEXTS, ["V0139"]),
    "shares above 100 %": (PAIRS + TEXTS.replace("(text)", "(text) share 20%", 1), ["V0140"]),
    "shares below 100 %": (PAIRS + TEXTS.replace("(text)", "(text) share 10%", 1), ["V0140"]),
    "nothing left": (PAIRS.replace("85%", "100%") + TEXTS, ["V0140"]),
    "two without a share": (PAIRS.replace(" share 85%", "") + TEXTS, ["V0140"]),
    "a field of another flow": (PAIRS + TEXTS.replace("mlm", "contrast(image, text) + mlm"), ["V0218"]),
    "a field that does not exist": (PAIRS + TEXTS.replace("(text)", "(text, caption)", 1), ["V0219"]),
    "a field that is not read": (PAIRS + TEXTS.replace("(text)", "(text, image)", 1), ["V0503"]),
    "a field twice": (PAIRS.replace("image, text)", "image, image, text)", 1) + TEXTS, ["V0120"]),
    "a name of the file": ("let a = 1\nstage b {\nlet a = 2\nminimize a * contrast(image, text)\n}", ["V0204"]),
    "a name of another stage": (
        "stage a {\nlet w = 2\nminimize w * mean(x)\n}\nstage b from a {\nminimize w * mean(x)\n}".replace(
            "mean(x)", "contrast(image, text)"
        ),
        ["V0201"],
    ),
    "a name that no block uses": (f"let a = 1\n{PAIRS}{TEXTS}", ["V0206"]),
    "numbers that differ": (
        PAIRS.replace("text)\n}", "text, temperature=learned(0.1))\n}") + "flow backs {\nminimize contrast(text, image)\n}",
        ["V0522"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(WRONG))
def test_what_makes_no_sense_is_said_at_its_place(case: str) -> None:
    text, expected = WRONG[case]
    assert codes(text) == expected
    assert all(fault.help or fault.code in ("V0120", "V0201", "V0204", "V0206", "V0503") for fault in check(text))


BROKEN = {
    "a slip for the word": (f"stages a {{\n  {CONTRAST}\n}}", ["V0122"]),
    "no name": (f"stage {{\n  {CONTRAST}\n}}", ["V0116"]),
    "a keyword as name": (f"flow recipe {{\n  {CONTRAST}\n}}", ["V0125"]),
    "a slip for from": (f"stage a {{\n  {CONTRAST}\n}}\nstage b form a {{\n  {CONTRAST}\n}}", ["V0114"]),
    "a share without its word": (f"flow a(image, text) 15% {{\n  {CONTRAST}\n}}", ["V0114"]),
    "a share that is a hyper-parameter": (
        f"recipe r(image: Image, text: Text, part = 85%)\n{PAIRS.replace('85%', 'part')}{TEXTS}",
        ["V0139"],
    ),
    "a negative share": (PAIRS.replace("85%", "-85%") + TEXTS, ["V0139"]),
    "a computed share": (PAIRS.replace("85%", "(1 - 15%)") + TEXTS, ["V0139"]),
    "no number after share": (PAIRS.replace("85% ", "") + TEXTS, ["V0139"]),
    "an open block": (f"stage a {{\n  {CONTRAST}\n", ["V0112"]),
    "faults of two flows": (
        f"flow a share 50% {{\n  lets x = 1\n  {CONTRAST}\n}}\nflow b {{\n  minimise contrast(image, text)\n}}",
        ["V0122", "V0122"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BROKEN))
def test_faults_of_blocks_stay_in_their_statement(case: str) -> None:
    text, expected = BROKEN[case]
    assert codes(text) == expected
    for fault in check(text):
        if fault.code == "V0139":
            assert fault.primary.span.start == text.index("share ") + len("share ")
            assert fault.help == ("write a share of the steps, as in `share 15%`",)


def test_the_words_of_blocks_are_names_elsewhere() -> None:
    text = "recipe mine(image: Image, text: Text, share = 50%, stage = 2)\n\nlet flow = stage * share\n"
    assert codes(f"{text}minimize flow * contrast(image, text)") == []


def test_a_name_that_one_of_the_blocks_uses_is_used() -> None:
    assert codes("let w = 2\n" + PAIRS.replace("minimize", "minimize w *") + TEXTS) == []


def test_a_recipe_with_stages_is_not_a_function(tmp_path: Path) -> None:
    (tmp_path / "staged.vlo").write_text(f"recipe staged(image: Image, text: Text)\nstage a {{\n  {CONTRAST}\n}}\n")
    text = 'use "./staged.vlo" as staged\nminimize staged(image, text)'
    assert "V0220" in [fault.code for fault in check(text, folder=tmp_path)]


def test_many_flows_have_the_limits_of_one_file() -> None:
    lines = "".join(f"let t{i} = exp(t{i - 1}) + t{i - 1}\n" for i in range(1, 1500))
    flows = "".join(f"flow f{i} share 2% {{\n  minimize t1499 * contrast(image, text)\n}}\n" for i in range(50))
    assert codes(f"let t0 = 1\n{lines}{flows}") == ["V0504"]


def test_a_file_has_a_limited_number_of_flows() -> None:
    text = "".join(f"flow f{i} share 1% {{\n  minimize contrast(image, text)\n}}\n" for i in range(100))
    (fault,) = check(text)
    assert (fault.code, fault.primary.span.start) == ("V0504", text.index("f64"))
