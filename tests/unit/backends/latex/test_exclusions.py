"""What formulas say of candidates that are left out, of slots that are not written, and of targets over the others."""

from __future__ import annotations

import pytest
from matplotlib.mathtext import MathTextParser

from vlmdsl.api.driver import build
from vlmdsl.backends.latex import formula_lines, formula_text

HEAD = """
recipe some(image: Image, text: Text, label: Label, flag: Flag, valid: Flag)
let texts = queue(text, size=9)
let labels = queue(label, size=9)
let s = similarity(image, text)
let q = similarity(image, texts)
let kept = restrict(s, to=flag)
let others = exclude_pairs(s)
minimize """

FORMULAS = {
    "mean(logsumexp(others))": ["L = 1/B Σ_i log(Σ_{j≠i} exp(x_i·y_j))"],
    "mean(logsumexp(kept))": ["L = 1/B Σ_i log(Σ_{j∈Q} exp(x_i·y_j))", "Q = {i : flag_i}"],
    "mean(logsumexp(unite(kept, q)))": [
        "L = 1/B Σ_i log(Σ_{j∈Q} exp(x_i·y_j) + Σ_{j} exp(x_i·a_j))",
        "a_1, a_2, … the latest 9 of earlier steps: z_i",
    ],
    'mean(cross_entropy(others, targets=same(label), along="rows"))': [
        "L = -1/B Σ_i 1/N_i Σ_{j∈P_i, j≠i} log(exp(x_i·y_j)/(Σ_{k≠i} exp(x_i·y_k)))",
        "N_i = Σ_{k∈P_i, k≠i} 1, the loss of a sample without any is 0",
    ],
    'mean(cross_entropy(kept, targets=paired, along="columns"))': [
        "L = -1/B Σ_i [i∈Q] log(exp(x_i·y_i)/(Σ_{j∈Q} exp(x_j·y_i)))"
    ],
    'mean(cross_entropy(kept, targets=paired, along="rows"), over=flag)': [
        "L = -1/|Q| Σ_{i∈Q} log(exp(x_i·y_i)/(Σ_{j∈Q} exp(x_i·y_j)))"
    ],
    'contrast(image, text, keep=flag, queries=valid, temperature=1, directions="rows")': [
        "L = -1/|K| Σ_{i∈K} [i∈Q] log(exp(x_i·y_i)/(Σ_{j∈Q} exp(x_i·y_j)))"
    ],
    'contrast(image, text, keep=flag, temperature=1, targets=smoothed(epsilon=0.2), directions="rows")': [
        "L = -1/|Q| Σ_{i∈Q} 1/N_i Σ_{j∈Q} T_ij log(exp(x_i·y_j)/(Σ_{k∈Q} exp(x_i·y_k)))",
        "T_ij = 0.8 [i = j] + 0.2/B",
        "N_i = Σ_{k∈Q} T_ik, the loss of a sample without any is 0",
    ],
    (
        "mean(cross_entropy(unite(s, exclude_pairs(similarity(image, image))), "
        'targets=unite(same(label), same(label)) / 2, along="rows"))'
    ): [
        "T_ij = 1/2 [j ∈ P_i]/|P_i|",
        "N_i = Σ_k T_ik + Σ_{k≠i} T_ik, the loss of a sample without any is 0",
    ],
    'mean(cross_entropy(unite(s, q), targets=same(label, earlier=labels), along="rows"))': [
        "E_i = {j : labels_j = label_i}",
        "T_ij = [j ∈ P_i]/(|P_i| + |E_i|)",
        "T(2)_ij = [j ∈ E_i]/(|P_i| + |E_i|)",
    ],
    'mean(cross_entropy(unite(s, q), targets=softmax(unite(others, q)), along="rows"))': [
        "T_ij = [j≠i] exp(sg(x_i·y_j))/(Σ_{k≠i} exp(sg(x_i·y_k)) + Σ_{k} exp(sg(x_i·a_k)))",
        "T(2)_ij = exp(sg(x_i·a_j))/(Σ_{k≠i} exp(sg(x_i·y_k)) + Σ_{k} exp(sg(x_i·a_k)))",
    ],
    'mean(kl(kept, targets=softmax(2 * kept), along="rows"))': [
        "T_ij = softmax_{j∈Q}(sg(2 x_i·y_j))",
        "N_i = Σ_{k∈Q} T_ik, the loss of a sample without any is 0",
    ],
    "mean(sigmoid_loss(unite(kept, q), targets=paired))": [
        "L = -1/B Σ_i (Σ_{j∈Q} log σ(t_ij x_i·y_j) + Σ_{j} log σ(-x_i·a_j))"
    ],
    'mean(hinge(kept, along="rows"))': ["L = 1/B Σ_i [i∈Q] mean_{j∈Q, j≠i} max(0, 0.2 + x_i·y_j - x_i·y_i)"],
    'mean(hinge(unite(s, q), along="rows", negatives="hardest"))': [
        "L = 1/B Σ_i max(max_{j≠i} max(0, 0.2 + x_i·y_j - x_i·y_i), max_{j} max(0, 0.2 + x_i·a_j - x_i·y_i))"
    ],
    "mean(row_mean(unite(kept, q)))": ["L = 1/B Σ_i (Σ_{j∈Q} x_i·y_j + Σ_{j} x_i·a_j)/count(j∈Q, j)"],
    'mean(cross_entropy(others, targets=paired, along="rows"))': ["L = -1/B Σ_i 0"],
    'mean(cross_entropy(q, targets=softmax(q), along="rows"))': [
        "L = -1/B Σ_i Σ_{j} T_ij log(exp(x_i·a_j)/(Σ_{k} exp(x_i·a_k)))"
    ],
}


@pytest.mark.parametrize("criterion", FORMULAS)
def test_the_formula_says_who_is_left_out(criterion: str) -> None:
    program = build(HEAD + criterion).written
    lines = [line.strip() for line in formula_text(program).splitlines()]
    for expected in FORMULAS[criterion]:
        assert expected in lines, lines
    for line in formula_lines(program):
        MathTextParser("path").parse(f"${line}$")


CRITERIA = (
    'cross_entropy({}, targets=paired, along="rows")', 'cross_entropy({}, targets=same(label), along="columns")',
    'cross_entropy({}, targets=softmax({}), along="rows")', 'kl({}, targets=smooth(paired, epsilon=0.1), along="rows")',
    'hinge({}, along="columns")', "sigmoid_loss({}, targets=paired)", "logsumexp({})", "row_sum({})", "row_mean({})",
    'cross_entropy(s, targets=softmax({}), along="rows")',
    'cross_entropy(s, targets=transport({}, epsilon=1), along="columns")',
)  # fmt: skip


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("matrix", "said"), [("restrict(s * 2, to=flag)", "∈Q"), ("3 * exclude_pairs(s) + s", "≠i")])
def test_no_criterion_forgets_an_exclusion(criterion: str, matrix: str, said: str) -> None:
    """Whatever reads the matrix, what is left out of it is mentioned; a loss that is 0 for that reason is 0."""
    written = formula_text(build(f"{HEAD}mean({criterion.replace('{}', matrix)})").written)
    assert said in written or "Σ_i 0" in written
    assert said not in formula_text(build(f"{HEAD}mean({criterion.replace('{}', 's')})").written).replace("mean_{j≠i}", "")
