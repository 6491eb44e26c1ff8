"""Formulas read like the papers', in both notations, and every line is LaTeX that renders."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from matplotlib.mathtext import MathTextParser

from unit.passes.programs import PROGRAMS, Build, align, alip, clip, decoupled, filip, siglip, unicl
from unit.passes.samples import Sample, samples
from vlmdsl.backends.latex import formula, formula_lines, formula_text
from vlmdsl.backends.latex.notation import words
from vlmdsl.backends.latex.render import render_png
from vlmdsl.ir import Node, Program
from vlmdsl.types import FieldType


def renders(program: Program) -> None:
    for line in formula_lines(program):
        MathTextParser("path").parse(f"${line}$")
        assert not re.search(r"\^\{[^{}]*\}\^", line), f"two superscripts: {line}"


def first(program: Program) -> str:
    return formula_text(program).splitlines()[0]


def test_clip_is_printed_as_in_the_paper() -> None:
    assert formula(clip()) == (
        "\\begin{aligned}\n"
        "  \\mathcal{L} &= -\\frac{1}{2 B} \\, \\sum_{i=1}^{B} \\left[ "
        "\\log \\frac{\\exp\\left( x_{i}^{\\top} y_{i} / \\tau \\right)}"
        "{\\sum_{j=1}^{B} \\exp\\left( x_{i}^{\\top} y_{j} / \\tau \\right)} + "
        "\\log \\frac{\\exp\\left( x_{i}^{\\top} y_{i} / \\tau \\right)}"
        "{\\sum_{j=1}^{B} \\exp\\left( x_{j}^{\\top} y_{i} / \\tau \\right)} \\right] \\\\\n"
        "  x_{i} &= \\frac{\\mathrm{vision}\\left( \\mathrm{image}_i \\right)}"
        "{\\| \\mathrm{vision}\\left( \\mathrm{image}_i \\right) \\|} \\\\\n"
        "  y_{i} &= \\frac{\\mathrm{language}\\left( \\mathrm{text}_i \\right)}"
        "{\\| \\mathrm{language}\\left( \\mathrm{text}_i \\right) \\|} \\\\\n"
        "  &\\tau\\ \\mathrm{learned,\\ initially}\\ {0.07},\\ 1/\\tau \\leq 100\n"
        "\\end{aligned}"
    )


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (
            clip,
            [
                "L = -1/(2B) Σ_i [log(exp(x_i·y_i/τ)/(Σ_j exp(x_i·y_j/τ))) + log(exp(x_i·y_i/τ)/(Σ_j exp(x_j·y_i/τ)))]",
                "τ learned, initially 0.07, 1/τ ≤ 100",
            ],
        ),
        (align, ["T_ij = 0.9 [i = j] + 0.1/B", "τ learned, initially 1"]),
        (filip, ["s_ij = 1/n_i Σ_k max_l x_ik·y_jl", "s'_ij = 1/m_j Σ_l max_k x_ik·y_jl"]),
        (unicl, ["P_i = {j : label_j = label_i}, only itself for a sample without label (0)"]),
        (siglip, ["L = -1/B Σ_i Σ_j log σ(t_ij (x_i·y_j/τ + b))", "t_ij = 2 [i = j] - 1", "b learned, initially -10"]),
        (
            alip,
            [
                "L = L_raw + L_clean",
                "g_i = min(h_i, 1)",
                "w_i = g_i (sg(exp(2 (x_i·y_i - 0.3))) if h_i < 1 else 1)",
            ],
        ),
        (decoupled, ["s_ij = 1/2 x_i·y_j + 1/2 r_ij", "K = {i : keep_i}"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_text(make: Callable[[], Program], lines: list[str]) -> None:
    formula = [line.strip() for line in formula_text(make()).splitlines()]
    for line in lines:
        assert line in formula


def test_decoupled_sums_leave_the_pair_and_the_masked_out() -> None:
    assert "Σ_{j∈Q, j≠i}" in first(decoupled())
    assert "-1/|K| Σ_{i∈K}" in first(decoupled())


def _pair(build: Build) -> Node:
    return build.similarity(build.pooled("image", "Image"), build.pooled("text"))


def test_several_positives_are_a_mean_over_them() -> None:
    assert "1/|P_i| Σ_{j∈P_i} log(exp(x_i·y_j/τ)/(Σ_k exp(x_i·y_k/τ)))" in first(unicl())


def test_a_fixed_temperature_divides() -> None:
    build = Build()
    program = build.program(
        "fixed", loss=build.mean(build.cross_entropy(build("divide", _pair(build), 0.07), build.paired()))
    )
    assert first(program) == "L = -1/B Σ_i log(exp(x_i·y_i/0.07)/(Σ_j exp(x_i·y_j/0.07)))"


def test_directions_with_different_weights_are_two_sums() -> None:
    build = Build()
    rows, columns = (build.mean(build.cross_entropy(_pair(build), build.paired(), along)) for along in ("rows", "columns"))
    program = build.program("two", loss=build("add", rows, build("multiply", columns, 2.0)))
    assert first(program) == (
        "L = -1/B Σ_i log(exp(x_i·y_i)/(Σ_j exp(x_i·y_j))) - 2/B Σ_i log(exp(x_i·y_i)/(Σ_j exp(x_j·y_i)))"
    )


def test_regions_that_differ_in_features_only_are_values_of_one_function() -> None:
    build = Build()
    temperature = build.temperature()
    image = build.pooled("image", "Image")
    losses = [
        build.both_ways(build("divide", build.similarity(image, build.pooled(name)), temperature), build.paired())
        for name in ("text", "caption")
    ]
    text = formula_text(build.program("mean", loss=build("divide", build("add", *losses), 2.0))).splitlines()
    assert text[0] == "L = 1/2 [ℓ(x, y) + ℓ(x, z)]"
    assert text[1].startswith("ℓ(p, q) = -1/(2B) Σ_i [log(exp(p_i·q_i/τ)")


def test_views_frozen_towers_and_stops_are_said() -> None:
    build = Build()
    text = build.field("text", "Text")
    drawn = build.add("rewrite", text, type=FieldType("Text"), count=4, minimum_words=2, draw=1)
    plain = build.pooled("text")
    encode = plain.inputs[0].inputs[0]
    encoded = build.graph.add("encode", drawn, type=encode.type, encoder=encode.attribute("encoder"))
    features = build.normalize(build.add("pooled", encoded, type=plain.type))
    image = build.stop(build.pooled("image", "Image", frozen=True))
    lines = formula_text(build.program("views", loss=build.both_ways(build.similarity(image, features), build.paired())))
    assert "text'_i ~ U{text_i, text_i^(1), …, text_i^(4)}" in lines
    assert "vision frozen" in lines
    assert "sg(x_i)·y_j" in lines


def test_what_is_not_a_region_is_written_as_it_stands() -> None:
    build = Build()
    losses = build.cross_entropy(_pair(build), build.paired())
    focal = build.program("focal", loss=build.mean(build("multiply", losses, build("exp", losses))))
    assert formula_text(focal).splitlines()[:3] == [
        "L = 1/B Σ_i g_i exp(g_i)",
        "where",
        "  g_i = -log(exp(x_i·y_i)/(Σ_j exp(x_i·y_j)))",
    ]


def test_an_unknown_similarity_is_a_named_function() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"), "hyperbolic")
    loss = build.mean(build.cross_entropy(matrix, build.paired()))
    assert "exp(hyperbolic(x_i, y_j))" in first(build.program("plug_in", loss=loss))


def test_a_sum_of_a_thousand_terms_is_written() -> None:
    build = Build()
    loss = build.mean(build.score(build.pooled("image", "Image"), build.pooled("text")))
    total = loss
    for position in range(1000):
        total = build("add", total, build("exp", build("multiply", loss, 1.0 + position)))
    assert first(build.program("long", loss=total)).count("exp") == 1000


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_every_line_renders(make: Callable[[], Program]) -> None:
    renders(make())


@given(sample=samples())
@settings(max_examples=15, deadline=None)
def test_every_line_of_random_programs_renders(sample: Sample) -> None:
    renders(sample.program)
    assert formula_text(sample.program)


def test_a_picture_is_written(tmp_path: Path) -> None:
    render_png(clip(), tmp_path / "clip.png", dots_per_inch=72)
    assert (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")


def test_no_character_of_a_word_is_a_command() -> None:
    parse = MathTextParser("path").parse
    for character in (chr(code) for code in range(32, 127) if chr(code) not in "#&"):  # mathtext does not know `\\#`
        written = words(f"a{character}b")
        assert written.text == f"a{character}b"
        parse(f"${written.latex}$")
    assert words(r"}\input{x}$%").latex == r"\mathrm{\}\backslash input\{x\}\$\%}"
