"""How losses of tokens are written."""

from __future__ import annotations

import pytest

import vlmdsl

RECIPE = "recipe r(text: Text)\nlet m = random(15%)\nminimize token_loss(linear(mask(text, m)), text, at=m{})"
OWN, OTHER = "-log p_language(text_i[k] | text'_i)", "-log p_language(v | text'_i)"


@pytest.mark.parametrize(
    ("arguments", "formula"),
    [
        ("", f"L = 1/|M| Σ_(i,k)∈M {OWN}"),
        (", smoothing=0.1", f"L = 1/|M| Σ_(i,k)∈M (0.9 ({OWN}) + 0.1/(V) Σ_v {OTHER})"),
        (', smoothing=0.1, over="others"', f"L = 1/|M| Σ_(i,k)∈M (0.9 ({OWN}) + 0.1/(V - 1) Σ_v≠text_i[k] {OTHER})"),
        (', reduction="sample"', f"L = 1/B Σ_i 1/|M_i| Σ_k∈M_i {OWN}"),
    ],
)
def test_targets_are_mixed_only_where_they_are_smoothed(arguments: str, formula: str) -> None:
    assert formula in vlmdsl.explain(RECIPE.format(arguments)).to_text().splitlines()
