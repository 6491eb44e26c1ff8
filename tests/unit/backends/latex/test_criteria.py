"""The formulas of candidates side by side, of soft targets and of distributions, from the recipe's text."""

from __future__ import annotations

import pytest
from matplotlib.mathtext import MathTextParser

from vlmdsl.api.driver import build
from vlmdsl.backends.latex import formula_lines, formula_text

FORMULAS = {
    "nt_xent(image, text, temperature=0.1)": [
        (
            "L = -1/(2B) Σ_i log(exp(10 x_i·y_i)/(Σ_j exp(10 x_i·y_j) + Σ_{j≠i} exp(10 x_i·x_j)))"
            " - 1/(2B) Σ_i log(exp(10 x_i·y_i)/(Σ_j exp(10 x_j·y_i) + Σ_{j≠i} exp(10 y_i·y_j)))"
        )
    ],
    'contrast(image, text, temperature=1, reduction="sum", directions="rows")': [
        "L = -Σ_i log(exp(x_i·y_i)/(Σ_j exp(x_i·y_j)))"
    ],
    "contrast(image, text, temperature=1, targets=0.5 * flipped + 0.5 * softmax(similarity(image, text)))": [
        "T_ij = 1/2 [i + j = B + 1] + 1/2 softmax_{j}(sg(x_i·y_j))",
        "T(2)_ij = 1/2 [i + j = B + 1] + 1/2 softmax_{j}(sg(x_j·y_i))",
    ],
    "contrast(image, mix(text, by=0.7, block=4), temperature=1, targets=0.7 * paired + 0.3 * flipped(block=4))": [
        "T_ij = 0.7 [i = j] + 0.3 [j = σ_4(i)]",
        "y_i = (0.7 z_i + (1 - 0.7) z_σ_4(i))/‖0.7 z_i + (1 - 0.7) z_σ_4(i)‖",
        "σ_4(i): the partner of i, blocks of 4 consecutive samples read backwards",
    ],
    "contrast(image, text, targets=transport(exclude_pairs(similarity(image, text)), epsilon=0.15, iterations=3))": [
        "T_ij = transport_{j≠i}(sg(x_i·y_j)/0.15)",
        "transport: exp with its rows and columns scaled to equal sums in turn, 3 times, then each sample's to 1",
    ],
    'sum(hinge(similarity(image, text), along="columns", margin=0.2))': [
        "L = Σ_i mean_{j≠i} max(0, 0.2 + x_j·y_i - x_i·y_i)"
    ],
    'mean(hinge(exclude_pairs(similarity(image, text)), along="rows", margin=1, negatives="hardest"))': ["L = 1/B Σ_i 0"],
    "contrast(gate(image, by=2 * score(image, text)), text, temperature=1)": [
        "x_i = 2 u_i·y_i vision(image_i)/‖2 u_i·y_i vision(image_i)‖"
    ],
    'let n = mine(similarity(image, text) / 0.5, along="columns")\nminimize mean(score(take(image, n), text))': [
        "L = 1/B Σ_i x_i·y_i",
        "π_i ~ softmax_{j≠i} 2 x(3)_j·y_i",
        "u_i = vision(image_i)",
        "x_i = u_π_i/‖u_π_i‖",
    ],
    (
        "recipe r(image: Image, text: Text, a: Flag)\n"
        'let n = mine(restrict(similarity(image, text), to=a), along="rows", k=2, floor=1e-4)\n'
        "minimize mean(score(image.tokens, take(text, n), by=tokenmean), over=picked(n))"
    ): [
        "Q = {i : a_i}",
        "K = {i : π_ik ≠ i}",
        "π_ik ~ softmax_{j∈Q} u_i·v_j + 0.0001 over j∈Q, j≠i, without replacement",
    ],
    "let p = distribution(image)\nminimize mean(entropy(p, stop(distribution(text)))) + entropy_of_mean(p)": [
        "L = 1/B Σ_i H(softmax(x_i), sg(softmax(y_i))) + H(1/B Σ_i softmax(x_i), 1/B Σ_i softmax(x_i))"
    ],
}


@pytest.mark.parametrize("recipe", FORMULAS)
def test_the_formula_says_what_is_computed(recipe: str) -> None:
    program = build(recipe).written
    lines = [line.strip() for line in formula_text(program).splitlines()]
    for expected in FORMULAS[recipe]:
        assert expected in lines
    for line in formula_lines(program):
        MathTextParser("path").parse(f"${line}$")


@pytest.mark.parametrize(
    ("bounds", "factor"),
    [
        ("min_scale=1, max_scale=100", "clamp(1/τ, 1, 100)"),
        ("max_scale=100", "min(1/τ, 100)"),
        ("min_scale=2", "max(1/τ, 2)"),
    ],
)
def test_a_scale_that_is_clamped_in_the_graph_is_written_as_a_temperature(bounds: str, factor: str) -> None:
    recipe = f'contrast(image, text, temperature=learned(0.07, {bounds}, clamp="hard"))'
    lines = formula_text(build(recipe).written).splitlines()
    assert f"log(exp(x_i·y_i {factor})/(Σ_j exp(x_i·y_j {factor})))" in lines[0]
    assert "  τ learned, initially 0.07" in lines
