"""What recipes mean: two ways to say the same give the same graph, and different ones do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlmdsl.api.check import check
from vlmdsl.api.driver import build
from vlmdsl.api.explain import explain
from vlmdsl.ir import Program, encoder_of, inputs, parameters, streams
from vlmdsl.ir.digest import digest

HEADER = "vlo 1\nrecipe mine(image: Image, text: Text)\n"


def planned(recipe: str, **knobs: object) -> Program:
    return build(recipe, knobs=knobs).planned


def names(program: Program) -> list[str]:
    return [node.string("name") for node in parameters(program)]


DOUBLING = [
    "def f0(x) = x + x\n" + "".join(f"def f{i}(x) = f{i - 1}(x) + f{i - 1}(x)\n" for i in range(1, 60)) + "minimize f59(1)",
    "let t0 = (1, 2)\n" + "".join(f"let t{i} = (t{i - 1}, t{i - 1})\n" for i in range(1, 60)) + "minimize t59",
]


@pytest.mark.parametrize("recipe", DOUBLING, ids=["calls", "tuples"])
def test_a_recipe_that_doubles_with_every_line_is_refused_at_once(recipe: str) -> None:
    assert [diagnostic.code for diagnostic in check(recipe)] == ["V0504"]


def test_a_formula_that_doubles_with_every_line_is_not_written_out() -> None:
    lines = "".join(f"let z{i} = z{i - 1} * 2 + z{i - 1}\n" for i in range(1, 60))
    loss = 'mean(cross_entropy(z59, targets=paired, along="rows"))'
    recipe = f"let z0 = similarity(image, text)\n{lines}minimize {loss}\n"
    assert "too long to be written out" in explain(recipe).to_text()


SAME = [
    ("contrast()", "contrast(image, text)"),
    ("contrast(image)", "contrast(image, text)"),
    ("contrast(augment(image))", "contrast(augment(image), text)"),
    ("contrast(text)", "contrast(text, image)"),
    ("contrast(sim=tokenmax, views=rewrite(M=4))", "contrast(image, rewrite(text, M=4), sim=tokenmax)"),
    ("contrast(sim=tokenmax, views=rewrite(M=4))", "contrast(image, rewrite(M=4)(text), sim=tokenmax)"),
    ("contrast(image, text, sim=0.5*cosine + cosine/2)", "contrast(image, text)"),
    ('contrast(image, text, combine="sum")', "2 * contrast(image, text)"),
    ("contrast(image, text, targets=smoothed(epsilon=0))", "contrast(image, text)"),
    ("contrast(image, text, bias=0, weight=1)", "contrast(image, text)"),
    ("contrast(vision(image), language(text))", "contrast(image, text)"),
    ("contrast(image.pooled, text.pooled)", "contrast(image, text)"),
    ("contrast(image, text, temperature=100% * 0.1)", "contrast(image, text, temperature=1 / 10)"),
    ("let x = 2 in x * contrast()", "2 * contrast(image, text)"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_meaning(one: str, other: str) -> None:
    assert digest_of_term(planned(one)) == digest_of_term(planned(other))


def digest_of_term(program: Program) -> str:
    """The digest with the one term renamed: how it is called depends on how it is written."""
    return digest(replace(program, terms=(replace(program.terms[0], name="term"),)))


DIFFERENT = [
    ("contrast(image, text)", "contrast(text, image, sim=tokenmax)"),
    ("contrast(image, text)", "contrast(image, stop(text))"),
    ("contrast(image, text)", 'contrast(image, text, directions="rows")'),
    ("contrast(image, text)", "contrast(image, text, temperature=0.07)"),
    ("contrast(image, text, sim=tokenmax)", "contrast(image, text, sim=tokenmean)"),
    ("contrast(image, rewrite(text, M=4))", "contrast(image, rewrite(text, M=5))"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_meaning(one: str, other: str) -> None:
    assert digest_of_term(planned(one)) != digest_of_term(planned(other))


def test_a_set_of_views_is_the_mean_over_the_views_with_one_temperature() -> None:
    program = planned("contrast(augment(image, n=2), text)")
    assert {stream.name for stream in streams(program)} == {"image_augment_crop_0", "image_augment_crop_1", "text"}
    assert names(program) == ["log_scale"]
    explicit = planned(
        HEADER
        + "let v = augment(image, n=2)\nlet tau = learned(0.07, max_scale=100)\n"
        + "minimize 0.5 * (contrast(v[0], text, temperature=tau) + contrast(v[1], text, temperature=tau))"
    )
    assert digest_of_term(program) == digest_of_term(explicit)


def test_the_product_of_two_sets_is_averaged() -> None:
    program = planned('contrast(augment(image, n=2), rewrite(text, M=2, pick="each"))')
    regions = [node for node in program.nodes() if node.operation == "contrast"]
    assert len(regions) == 6


def test_each_use_of_a_recipe_learns_its_own_temperature() -> None:
    program = planned(
        HEADER + "use clip, siglip\nminimize {\n  a: clip(image, text)\n  b: clip(image, text)\n  c: siglip(image, text)\n}"
    )
    assert names(program) == ["log_scale", "log_scale_2", "log_scale_3", "bias"]
    assert [term.name for term in program.terms] == ["a", "b", "c"]


def test_one_let_is_one_temperature() -> None:
    program = planned(
        HEADER + "let tau = learned(0.1)\nminimize {\n  a: contrast(image, text, temperature=tau)\n"
        "  b: contrast(image, text, sim=tokenmax, temperature=tau)\n}"
    )
    assert names(program) == ["tau_log_scale"]
    assert [metric.name for metric in program.metrics] == ["tau"]


def test_hyper_parameters_reach_the_graph() -> None:
    assert parameters(planned("siglip", bias=-5))[1].number("initial") == -5.0
    assert len(streams(planned("laclip_mt", M=2))) == 4


def test_an_encoder_of_the_recipe_holds_for_used_recipes_too() -> None:
    program = planned(HEADER + "use clip\nencoder vision = frozen(vision)\nminimize clip(image, text)")
    assert {encoder_of(stream.encode).frozen for stream in streams(program) if stream.name == "image"} == {True}
    assert {encoder_of(stream.encode).frozen for stream in streams(program) if stream.name == "text"} == {False}


def test_inputs_are_named_after_the_fields() -> None:
    assert [port.name for port in inputs(planned("filip"))] == ["image_tokens", "image_mask", "text_tokens", "text_mask"]
    both = planned("contrast(image, text, sim=0.5*cosine + 0.5*tokenmax)")
    assert {port.name for port in inputs(both)} == {
        "image", "image_tokens", "image_mask", "text", "text_tokens", "text_mask",
    }  # fmt: skip


def test_a_bare_expression_needs_only_the_fields_it_reads() -> None:
    program = build("contrast(augment(image), image, temperature=0.1)").written
    assert [name for name, _ in program.fields] == ["image"]


def test_files_use_one_another(tmp_path: Path) -> None:
    (tmp_path / "part.vlo").write_text("vlo 1\ndef halved(x) = x / 2\n")
    (tmp_path / "base.vlo").write_text(
        "vlo 1\nrecipe base(image: Image, text: Text, t = 0.2)\nminimize contrast(image, text, temperature=t)\n"
    )
    main = tmp_path / "main.vlo"
    main.write_text(
        'vlo 1\nrecipe main(image: Image, text: Text)\nuse "./part.vlo" as part\nuse "./base.vlo" as base\n'
        "minimize halved(base(image, text, t=0.5))\n"
    )
    expected = planned("0.5 * contrast(image, text, temperature=0.5)")
    assert digest_of_term(build(main).planned) == digest_of_term(expected)


def test_a_batch_policy_is_part_of_the_meaning_and_not_of_a_used_recipe(tmp_path: Path) -> None:
    plain, mixed = HEADER + "minimize contrast(image, text)", HEADER + "batch mixed\nminimize contrast(image, text)"
    debiased = HEADER + "batch one_source\nminimize contrast(image, text)"
    assert planned(debiased).batch_policy == "one_source"
    assert digest(planned(plain)) == digest(planned(mixed)) != digest(planned(debiased))
    (tmp_path / "debiased.vlo").write_text(debiased)
    user = tmp_path / "user.vlo"
    user.write_text(HEADER + 'use "./debiased.vlo" as debiased\nminimize debiased(image, text)')
    assert build(user).planned.batch_policy == "mixed"
