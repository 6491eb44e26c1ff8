"""How losses of tokens are written."""

from __future__ import annotations

import pytest

import vlmdsl

RECIPE = (
    "recipe r(text: Text, sure: Number, good: Flag)\nlet m = random(15%)\n"
    "minimize token_loss(linear(mask(text, m)), text, at=m{})"
)
OWN, OTHER = "-log p_language(text_i[k] | text'_i)", "-log p_language(v | text'_i)"


@pytest.mark.parametrize(
    ("arguments", "formula"),
    [
        ("", f"L = 1/|M| Σ_(i,k)∈M {OWN}"),
        (", smoothing=0.1", f"L = 1/|M| Σ_(i,k)∈M (0.9 ({OWN}) + 0.1/(V) Σ_v {OTHER})"),
        (', smoothing=0.1, over="others"', f"L = 1/|M| Σ_(i,k)∈M (0.9 ({OWN}) + 0.1/(V - 1) Σ_v≠text_i[k] {OTHER})"),
        (', reduction="sample"', f"L = 1/B Σ_i 1/|M_i| Σ_k∈M_i {OWN}"),
        (", weight=sure", f"L = 1/(Σ_(i,k)∈M sure_i) Σ_(i,k)∈M sure_i ({OWN})"),
        (', weight=sure, where=good, reduction="sum"', f"L = 1/(Σ_i∈Q sure_i) Σ_i∈Q sure_i Σ_k∈M_i {OWN}"),
        (", weight=sure, where=good, smoothing=0.1", "  Q = {i : good_i}"),
        (", where=good", "  M: the tokens of text'_i that the mask selected, of all samples in Q"),
        (', where=good, reduction="sample"', f"L = 1/|Q| Σ_i∈Q 1/|M_i| Σ_k∈M_i {OWN}"),
    ],
)
def test_targets_are_mixed_only_where_they_are_smoothed(arguments: str, formula: str) -> None:
    assert formula in vlmdsl.explain(RECIPE.format(arguments)).to_text().splitlines()


TWO = "recipe r(image: Image, text: Text, other: Text, good: Flag)\nlet m = random(15%)\nlet n = random(30%)\nminimize "


@pytest.mark.parametrize(
    ("loss", "means", "stated"),
    [
        (
            "mlm(mask(text, m)) + mlm(mask(other, n))",
            "∈M -log p_language(text_i[k] | text'_i) + 1/|M(2)| Σ_(i,k)∈M(2) -log p_language(other_i[k] | other'_i)",
            {
                "M: the tokens of text'_i that the mask selected, of all samples",
                "M(2): the tokens of other'_i that the mask selected, of all samples",
            },
        ),
        (
            "mlm(mask(text, m)) + token_loss(linear(mask(text, m)), text)",
            "Σ_(i,k)∈M(2) -log p_language(text_i[k] | text'_i)",
            {
                "M: the tokens of text'_i that the mask selected, of all samples",
                "M(2): the tokens of text'_i, of all samples",
            },
        ),
        (
            "mlm(mask(text, m)) + mlm(mask(text, m), where=good)",
            "Σ_(i,k)∈M(2)",
            {
                "M: the tokens of text'_i that the mask selected, of all samples",
                "M(2): the tokens of text'_i that the mask selected, of all samples in Q",
            },
        ),
        (
            "mlm(mask(text, m)) + token_loss(linear(mask(text, m)), text, at=m, smoothing=0.1)",
            "Σ_(i,k)∈M (0.9",
            {"M: the tokens of text'_i that the mask selected, of all samples"},
        ),
        (
            "mlm(mask(text, m)) + reconstruct(decode(drop(image, n)), pixels(image), at=n)",
            "1/|M(2)| Σ_(i,p)∈M(2) 1/C",
            {
                "M: the tokens of text'_i that the mask selected, of all samples",
                "M(2): the patches of image'_i that were dropped, of all images",
            },
        ),
    ],
    ids=["two texts", "selected and all", "other samples", "the same", "tokens and patches"],
)
def test_what_a_mean_is_over_is_stated_of_each_view(loss: str, means: str, stated: set[str]) -> None:
    written = vlmdsl.explain(TWO + loss).to_text()
    assert means in written
    assert {line.strip() for line in written.splitlines() if line.startswith("  M")} == stated
    assert (r"\in M^{(2)}" in written) is (len(stated) == 2)  # the LaTeX form follows


HEAD = "recipe r(image: Image, text: Text, sure: Number, good: Flag, match: Flag)\nlet m = random(75%)\n"
HEAD += 'let n = mine(similarity(image, text), along="rows")\n'


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (
            "reconstruct(decode(drop(image, m)), pixels(image), at=m, weight=sure, where=good)",
            "L = 1/(Σ_(i,p)∈M sure_i) Σ_(i,p)∈M sure_i 1/C ‖decoder(vision(image'_i))[p] - image_i[p]‖²",
        ),
        ("reconstruct(decode(drop(image, m)), pixels(image), at=m, where=good)", "of all images in Q"),
        ("matching(text | image, match)", "L = mean(-log p_fusion(match_i; text_i | image_i))"),
        (
            "matching(text | image, match, where=good, weight=sure)",
            "L = 1/(Σ_i∈Q sure_i) Σ_i∈Q sure_i (-log p_fusion(match_i; text_i | image_i))",
        ),
        (
            "matched(text | image, take(text, n) | image, weight=sure, where=good)",
            "mean: over all samples in Q, of others those that have picked another one, each sample with the weight sure_i",
        ),
    ],
)
def test_the_samples_that_count_and_their_weights_are_in_the_formula(loss: str, formula: str) -> None:
    assert formula in vlmdsl.explain(f"{HEAD}minimize {loss}").to_text()
