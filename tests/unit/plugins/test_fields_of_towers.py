"""Kinds of fields of plug-ins that towers take: checked, compiled with their tokens too, planned, and refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import vlmdsl
from vlmdsl.primitives.plugins import MODULES
from vlmdsl.primitives.registry import _PRIMITIVES
from vlmdsl.runtime.modules.towers import build_encoder
from vlmdsl.runtime.training.tokenizers import encoder_name
from vlmdsl.schema import ModelConfig
from vlmdsl.testing import example_features
from vlmdsl.types import FIELD_KINDS, FieldKind, register_field_kind


@pytest.fixture(autouse=True)
def _smells() -> Iterator[None]:
    """A kind of field and a tower for it, as long as a test runs."""
    register_field_kind(FieldKind("Smell", "a smell: [B, S], float", "a Smell", "nowhere:Family", token_axis="S"))

    def nose(request: object) -> object:
        """A tower for smells."""
        raise ValueError("blocked")

    vlmdsl.primitive(kind="module", takes=("Smell",))(nose)
    yield
    for registry, name in ((FIELD_KINDS, "Smell"), (MODULES, ("nose", "Smell")), (_PRIMITIVES.registered, "nose")):
        registry.pop(name)


RECIPE = "recipe smelt(smell: Smell, text: Text)\nminimize contrast({}, text, sim={})"


@pytest.mark.parametrize(("similarity", "features"), [("cosine", "smell_nose"), ("tokenmax", "smell_nose_tokens")])
def test_a_tower_gives_its_features_and_tokens(similarity: str, features: str) -> None:
    recipe = RECIPE.format("nose()(smell)", similarity)
    objective = vlmdsl.compile(recipe, compiled=False).double()
    assert objective.inputs[features].axes == (("B", "S", "D") if similarity == "tokenmax" else ("B", "D"))
    assert torch.isfinite(objective(**example_features(objective)).loss)
    assert "nose" in vlmdsl.plan(recipe).to_text()


@pytest.mark.parametrize(
    ("argument", "code"),
    [("smell", "V0312"), ("nose()(text)", "V0310"), ("vision(smell)", "V0310"), ("nose(5)(smell)", "V0403")],
)
def test_a_field_without_its_tower_is_a_diagnostic(argument: str, code: str) -> None:
    assert [fault.code for fault in vlmdsl.check(RECIPE.format(argument, "cosine")) if fault.severity == "error"] == [code]


def test_a_tower_is_its_family_s_default_unless_the_settings_name_another() -> None:
    assert encoder_name(ModelConfig(), "nose", "Smell") == "nose:default"
    assert encoder_name(ModelConfig(towers={"nose": "nose:fine"}), "nose", "Smell") == "nose:fine"
    with pytest.raises(vlmdsl.DiagnosticError, match=r"V0216.*ValueError: blocked"):
        build_encoder("nose:default", "Smell", dimension=4)
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        build_encoder("vit:tiny", "Smell", dimension=4)
    assert (caught.value.diagnostics[0].code, "nose:PRESET" in caught.value.diagnostics[0].help[0]) == ("V0830", True)
